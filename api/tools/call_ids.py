"""Ids of earlier calls in the form that a dialect's templates insist on."""

from __future__ import annotations

import re
from hashlib import sha256

from api.tools.dialects import SHORT_ID_CHARS, ToolDialect

_SHORT = re.compile(rf"[A-Za-z0-9]{{{SHORT_ID_CHARS}}}")


def fitting_ids(messages: list[dict[str, object]], dialect: ToolDialect) -> list[dict[str, object]]:
    """The messages with ids that fit: a call and its result keep the same one."""
    if not dialect.has_short_ids:
        return messages
    fitted = []
    for message in messages:
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            renamed = [{**call, "id": short_id(call.get("id") or str(i))}
                       for i, call in enumerate(calls)]  # fmt: skip
            message = {**message, "tool_calls": renamed}
        if message.get("tool_call_id") is not None:
            message = {**message, "tool_call_id": short_id(str(message["tool_call_id"]))}
        fitted.append(message)
    return fitted


def short_id(call_id: str) -> str:
    """Nine letters and digits for any id; one that fits stays."""
    if _SHORT.fullmatch(call_id):
        return call_id
    return sha256(call_id.encode()).hexdigest()[:SHORT_ID_CHARS]
