"""The forms in which clients write the messages of a chat, as the one form that templates take:
null, absent and empty things that mean the same, parts with other names, older kinds of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from api.requests.fields import type_of
from dllama.chat.adaptations import REASONING_KEYS

Message = dict[str, object]

# Types of parts that are text, and where they have it.
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def in_one_form(messages: Sequence[Message]) -> list[Message]:
    """Returns the messages without what says nothing; a last message of the assistant that is empty
    is as good as absent. What is wrong stays, for dllama.chat to refuse by name."""
    return without_empty_end([_in_one_form(message) for message in messages])


def without_empty_end(messages: list[Message]) -> list[Message]:
    """Returns the messages but for a last one of the assistant that says nothing."""
    if messages and messages[-1].get("role") == "assistant" and _is_empty(messages[-1]):
        return messages[:-1]
    return messages


def _is_empty(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(p.get("text")) for p in content if isinstance(p, Mapping))
    return not content and not any(message.get(key) for key in ("tool_calls", *REASONING_KEYS))


def _in_one_form(message: Message) -> Message:
    found = {k: v for k, v in message.items() if k == "content" or v is not None}
    if found.get("tool_calls") == []:
        del found["tool_calls"]
    call = found.get("function_call")
    if isinstance(call, dict) and "tool_calls" not in found:
        del found["function_call"]
        found["tool_calls"] = [{"id": "call_0", "type": "function", "function": call}]
    calls = found.get("tool_calls")
    if isinstance(calls, list):
        found["tool_calls"] = [_a_call(call) for call in calls]
    refusal = found.pop("refusal", None)
    content = found.get("content", refusal if found.get("role") == "assistant" else None)
    if content is None and isinstance(refusal, str):
        content = refusal
    if isinstance(content, list):
        content = [_a_part(part) for part in content] or ""
    may_be_null = any(found.get(key) for key in ("tool_calls", *REASONING_KEYS))
    if content is None and not may_be_null and ("content" in found or _is_assistant(found)):
        content = ""
    if content is not None or "content" in found:
        found["content"] = content
    return found


def _is_assistant(message: Message) -> bool:
    return message.get("role") == "assistant"


def _a_part(part: object) -> object:
    if not isinstance(part, dict):
        return {"type": "text", "text": part} if isinstance(part, str) else part
    kind = type_of(part)
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        return part
    key = TEXT_PARTS[kind]
    text = part.get(key)
    rest = {k: v for k, v in part.items() if k not in ("type", key)}
    return {"type": "text", "text": "" if text is None else text, **rest}


def _a_call(call: object) -> object:
    """Returns a call without nulls; the text that a custom tool gets is its argument `input`."""
    if not isinstance(call, dict):
        return call
    found = {k: v for k, v in call.items() if v is not None}
    custom = found.get("custom")
    if type_of(found) == "custom" and isinstance(custom, dict):
        arguments = orjson.dumps({"input": custom.get("input")}).decode()
        function: object = {"name": custom.get("name"), "arguments": arguments}
        return {"id": found.get("id"), "type": "function", "function": function}
    function = found.get("function")
    if isinstance(function, dict) and function.get("arguments", "") is None:
        found["function"] = {**function, "arguments": ""}
    return found
