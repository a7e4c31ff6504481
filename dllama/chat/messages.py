"""Checks a list of chat messages before a template sees it.

Each refusal is a RequestError whose `param` is the path of the field at fault.
"""

from __future__ import annotations

from dllama.chat.adaptations import REASONING_KEYS
from dllama.errors import RequestError

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")


def check_messages(messages: object) -> None:
    """Checks that `messages` is a conversation that a template can be given. Raises
    RequestError."""
    if not isinstance(messages, list):
        raise _wrong("messages", messages, "a list of messages")
    if not messages:
        raise RequestError("`messages` is empty; send at least one message.", param="messages")
    for i, message in enumerate(messages):
        _check_message(message, f"messages[{i}]")


def _check_message(message: object, path: str) -> None:
    if not isinstance(message, dict):
        raise _wrong(path, message, "an object with `role` and `content`")
    role = message.get("role")
    if not isinstance(role, str):
        raise _wrong(f"{path}.role", role, f"one of {', '.join(ROLES)}")
    if role not in ROLES:
        raise RequestError(
            f"`{path}.role` is {_shown(role)}, which is no role; use one of {', '.join(ROLES)}.",
            param=f"{path}.role",
        )
    if message.get("function_call") is not None:
        raise RequestError(
            f"`{path}.function_call` is not supported; send `tool_calls` instead.",
            param=f"{path}.function_call",
        )
    calls = message.get("tool_calls")
    if calls is not None:
        _check_tool_calls(calls, role, f"{path}.tool_calls")
    has_thoughts = any(message.get(key) for key in REASONING_KEYS)
    may_be_null = bool(calls) or (has_thoughts and role == "assistant")
    _check_content(message.get("content"), f"{path}.content", may_be_null=may_be_null)
    for key in ("name", "tool_call_id", *REASONING_KEYS):
        if message.get(key) is not None and not isinstance(message[key], str):
            raise _wrong(f"{path}.{key}", message[key], "a text")


def _check_content(content: object, path: str, *, may_be_null: bool) -> None:
    if content is None:
        if may_be_null:
            return
        raise RequestError(
            f"`{path}` is missing; send a text (only an assistant message with `tool_calls` or "
            f"thoughts may do without).",
            param=path,
        )
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _wrong(path, content, "a text or a list of text parts")
    for i, part in enumerate(content):
        _check_part(part, f"{path}[{i}]")


def _check_part(part: object, path: str) -> None:
    if not isinstance(part, dict):
        raise _wrong(path, part, 'an object like {"type": "text", "text": "..."}')
    kind = part.get("type")
    if kind != "text":
        raise RequestError(
            f"`{path}.type` is {_shown(kind)}; this server takes parts of the type 'text' only.",
            param=f"{path}.type",
        )
    if not isinstance(part.get("text"), str):
        raise _wrong(f"{path}.text", part.get("text"), "a text")


def _check_tool_calls(calls: object, role: str, path: str) -> None:
    if not isinstance(calls, list):
        raise _wrong(path, calls, "a list of tool calls")
    if role != "assistant":
        raise RequestError(
            f"`{path}` is set in a message of the role {role!r}; only the assistant calls tools.",
            param=path,
        )
    for i, call in enumerate(calls):
        _check_tool_call(call, f"{path}[{i}]")


def _check_tool_call(call: object, path: str) -> None:
    if not isinstance(call, dict):
        raise _wrong(path, call, "an object with `id`, `type` and `function`")
    if call.get("type", "function") != "function":
        raise RequestError(
            f"`{path}.type` is {_shown(call['type'])}; the only type is 'function'.",
            param=f"{path}.type",
        )
    if call.get("id") is not None and not isinstance(call["id"], str):
        raise _wrong(f"{path}.id", call["id"], "a text")
    function = call.get("function")
    if not isinstance(function, dict):
        raise _wrong(f"{path}.function", function, "an object with `name` and `arguments`")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(f"{path}.function.name", name, "the name of a function")
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str | dict):
        raise _wrong(f"{path}.function.arguments", arguments, "JSON in a text")


_KINDS = {
    type(None): "missing",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _wrong(path: str, value: object, wanted: str) -> RequestError:
    kind = _KINDS.get(type(value), f"a {type(value).__name__}")
    return RequestError(f"`{path}` is {kind}; expected {wanted}.", param=path)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
