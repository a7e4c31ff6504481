"""A conversation's tools and calls as its chat template takes them: in words for templates that
know no tools, and with ids of the form that a dialect's templates insist on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from api.tools.dialects import GENERIC, SHORT_ID_CHARS, ToolDialect
from api.tools.tool_request import ToolRequest

Messages = list[dict[str, object]]
_SHORT = re.compile(rf"[A-Za-z0-9]{{{SHORT_ID_CHARS}}}")

_RESULT_ROLES = ("tool", "function", "ipython")
_INSTRUCTION = """\
You may call functions to help with the user's request. These are the functions, as JSON:
{tools}
To call {number}, write {form} in this form and nothing after it, with arguments that fit the \
function's parameters:
<tool_call>
{{"name": "the function's name", "arguments": {{"the parameter's name": "its value"}}}}
</tool_call>
The result of a call comes back to you between <tool_response> and </tool_response>."""


def told_in_words(
    messages: Messages, tools: ToolRequest, dialect: ToolDialect, *, writes_calls: bool = False
) -> Messages:
    """Returns the messages as a template without tools can render them; unchanged those of other
    dialects, and those that have nothing of tools. A template may know calls (`writes_calls`) all
    the same: a history of them is then the template's, unless the answer is to call tools too."""
    knows_of_tools = bool(tools.rendered) or any(map(_is_of_tools, messages))
    if dialect is not GENERIC or not knows_of_tools:
        return messages
    if writes_calls and not tools.rendered and not any(map(_has_text_and_calls, messages)):
        return [{**m, "content": None} if m.get("tool_calls") else m for m in messages]
    told = _merged([_as_text(message) for message in messages])
    return _with_system(told, describe(tools)) if tools.rendered else told


def describe(tools: ToolRequest) -> str:
    """Returns the description of the tools for the system message."""
    shown = "\n".join(
        json.dumps(tool.raw["function"], ensure_ascii=False) for tool in tools.rendered
    )
    number, form = ("some", "each") if tools.is_parallel else ("one", "it")
    return _INSTRUCTION.format(tools=shown, number=number, form=form)


def _as_text(message: dict[str, object]) -> dict[str, object]:
    role, content = message.get("role"), _plain(message.get("content"))
    if role in _RESULT_ROLES:
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = message.get("tool_calls")
    if role == "assistant" and isinstance(calls, list) and calls:
        written = "\n".join(_call_text(call) for call in calls)
        kept = {k: v for k, v in message.items() if k != "tool_calls"}
        return {**kept, "content": f"{content}\n{written}" if content else written}
    return message


def _is_of_tools(message: Mapping[str, object]) -> bool:
    """True for a message that calls tools, or is the result of a call."""
    return bool(message.get("tool_calls")) or message.get("role") in _RESULT_ROLES


def _has_text_and_calls(message: Mapping[str, object]) -> bool:
    """True for a message of which such templates write the text and drop the calls."""
    return bool(message.get("tool_calls") and message.get("content"))


def _call_text(call: object) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    assert isinstance(function, Mapping), "messages are checked before they are changed"
    arguments = function.get("arguments") or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    head = GENERIC.head(str(function["name"]))
    return f"{GENERIC.before}{head}{text}}}{GENERIC.after}"


def _plain(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content)
    return "" if content is None else str(content)


def _merged(messages: Sequence[dict[str, object]]) -> Messages:
    """Joins consecutive messages of the user: results of tools make such rows, which many
    templates refuse."""
    merged: Messages = []
    for message in messages:
        before = merged[-1] if merged else {}
        if message.get("role") == "user" == before.get("role"):
            text = f"{_plain(before.get('content'))}\n{_plain(message.get('content'))}"
            merged[-1] = {**before, "content": text}
        else:
            merged.append(message)
    return merged


def _with_system(messages: Messages, text: str) -> Messages:
    if messages and messages[0].get("role") in ("system", "developer"):
        first = messages[0]
        said = f"{_plain(first.get('content'))}\n\n{text}".lstrip()
        return [{**first, "content": said}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def fitting_ids(messages: Messages, dialect: ToolDialect) -> Messages:
    """Returns the messages with ids that fit; a call and its result keep the same one."""
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
    """Returns nine letters and digits for any id; one that fits stays."""
    if _SHORT.fullmatch(call_id):
        return call_id
    return sha256(call_id.encode()).hexdigest()[:SHORT_ID_CHARS]
