"""How each family of models writes a tool call: a table. Adding a family is adding a row.

A call is mostly a JSON object of a name and arguments; the rows differ in what stands around it.
Source: the chat templates of the models' makers."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass

from api.tools.tagged import TAGS
from dllama.plugins import TOOL_DIALECTS as PLUGINS
from dllama.plugins import load_all


@dataclass(frozen=True, slots=True)
class ToolDialect:
    """An answer's calls are: `opening`, then each call between `before` and `after`, with
    `between` among them, then `closing`. `mark` is the first text of that, by which a call is
    told from other text; where a call `is_bare` it may also begin the answer without its mark.
    """

    name: str
    signs: tuple[str, ...]  # texts of a chat template by which the dialect is known, one of them
    mark: str
    opening: str = ""
    before: str = ""
    after: str = ""
    between: str = ""
    closing: str = ""
    arguments_key: str = "arguments"
    is_bare: bool = False
    is_single: bool = False  # the models were made for one call a turn
    has_short_ids: bool = False  # nine letters and digits, which the templates insist on
    describes_tools: bool = True  # the template does, so that the server need not
    has_channels: bool = False  # all of an answer is in Harmony, and so are its calls
    has_tags: bool = False  # a call is no JSON: its arguments stand between tags, see tagged.py

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts of calls by which they are read, any of which may be a control token."""
        return TAGS if self.has_tags else (self.mark,)

    def head(self, name: str) -> str:
        """Returns the text of a call up to its arguments."""
        return f'{{"name": {json.dumps(name)}, "{self.arguments_key}": '

    def new_id(self) -> str:
        """Returns an id for a call, as the dialect's templates take it."""
        if self.has_short_ids:
            return "".join(secrets.choice(_LETTERS) for _ in range(SHORT_ID_CHARS))
        return f"call_{secrets.token_hex(12)}"


SHORT_ID_CHARS = 9
_LETTERS = string.ascii_letters + string.digits

HERMES = ToolDialect(
    name="hermes",  # Hermes 2 and 3 Pro, Qwen 2.5 and 3, QwQ
    signs=("<tool_call>",),
    mark="<tool_call>",
    before="<tool_call>\n",
    after="\n</tool_call>",
    between="\n",
)
GLM = ToolDialect(
    name="glm",  # GLM-4.5, 4.6, 4.7
    signs=("<arg_key>",),
    mark="<tool_call>",
    before="<tool_call>",
    after="</tool_call>",
    between="\n",
    has_tags=True,
)
MISTRAL = ToolDialect(
    name="mistral",  # Nemo, 7B v0.3, Small, Large
    signs=("[TOOL_CALLS]",),
    mark="[TOOL_CALLS]",
    opening="[TOOL_CALLS][",
    between=", ",
    closing="]",
    has_short_ids=True,
)
LLAMA3 = ToolDialect(
    name="llama3",  # Llama 3.1, 3.2, 3.3
    signs=("<|python_tag|>", '"parameters": ', "Environment: ipython"),
    mark="<|python_tag|>",
    opening="<|python_tag|>",
    between="; ",
    arguments_key="parameters",
    is_bare=True,
    is_single=True,
)
FIREFUNCTION = ToolDialect(
    name="firefunction",  # Firefunction v2
    signs=("functools[",),
    mark="functools[",
    opening="functools[",
    between=", ",
    closing="]",
)
HARMONY = ToolDialect(
    name="harmony",  # gpt-oss: see harmony.py
    signs=("<|channel|>commentary",),
    mark="<|channel|>commentary",
    is_single=True,
    has_channels=True,
)
GENERIC = ToolDialect(
    name="generic",  # templates that know no tools: told in words, see history.py
    signs=(),
    mark="<tool_call>",
    before="<tool_call>\n",
    after="\n</tool_call>",
    between="\n",
    describes_tools=False,
)
OWN_DIALECTS = (GLM, HERMES, MISTRAL, FIREFUNCTION, HARMONY, LLAMA3)
TOOL_DIALECTS = (
    *load_all(
        PLUGINS,
        ToolDialect,
        lambda dialect: dialect.name,
        [dialect.name for dialect in (*OWN_DIALECTS, GENERIC)],
    ),
    *OWN_DIALECTS,
)
"""The first whose signs a template has; those of plugins were installed for a reason."""


def dialect_of(template_sources: tuple[str, ...]) -> ToolDialect:
    """Returns the dialect that a model's chat templates are written for; the generic one if they
    know no tools. The template for conversations with tools comes first."""
    for source in template_sources:
        if "tools" not in source:
            continue
        for dialect in TOOL_DIALECTS:
            if any(sign in source for sign in dialect.signs):
                return dialect
    return GENERIC
