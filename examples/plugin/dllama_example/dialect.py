"""A dialect of tool calls: its signs in a chat template, and the text around a call."""

from __future__ import annotations

from api.tools.dialects import ToolDialect

DIALECT = ToolDialect(
    name="example",
    signs=("<call-example>",),
    mark="<call-example>",
    before="<call-example>",
    after="</call-example>",
    between="\n",
)
