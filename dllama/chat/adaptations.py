"""Adapts messages to what a template can read, which is less than clients may send. Each adaptation
is a function of one row of the table at the end; none changes its input, and none does anything to
messages that the template takes as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dllama.chat.traits import Arguments, Traits

Messages = list[dict[str, Any]]
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_ROLES = {"developer": "system", "function": "tool"}


def adapt(messages: Sequence[Mapping[str, Any]], traits: Traits) -> Messages:
    """The messages as a template of these traits wants them."""
    adapted: Messages = [dict(message) for message in messages]
    for change in ADAPTATIONS:
        adapted = change(adapted, traits)
    return adapted


def _rename_roles(messages: Messages, traits: Traits) -> Messages:
    """Roles that newer APIs renamed, by the names that templates know."""
    return [{**m, "role": _ROLES.get(m["role"], m["role"])} for m in messages]


def _name_reasoning(messages: Messages, traits: Traits) -> Messages:
    """Reasoning under the names that templates read, whichever one it was sent by. Before calls of
    tools Cohere's write a plan: the thoughts, else what was said there."""
    named: Messages = []
    for message in messages:
        found = [message[key] for key in REASONING_KEYS if message.get(key) is not None]
        if found:
            message = {"thinking": found[0], **message, "reasoning_content": found[0]}
        if message.get("tool_calls"):
            plan = found[0] if found else _as_text(message.get("content"))
            message = {"tool_plan": plan, **message}
        named.append(message)
    return named


def _shape_content(messages: Messages, traits: Traits) -> Messages:
    """Parts of text joined by line feeds where a template takes no lists, and the other way."""
    return [
        {**m, "content": _shaped(m["content"], traits)} if "content" in m else m for m in messages
    ]


def _shaped(content: Any, traits: Traits) -> Any:
    if isinstance(content, list) and not traits.takes_parts:
        return "\n".join(part["text"] for part in content)
    if isinstance(content, str) and traits.wants_parts:
        return [{"type": "text", "text": content}]
    return content


def _fill_null(messages: Messages, traits: Traits) -> Messages:
    """An empty text where a template cannot do without one."""
    if traits.takes_null:
        return messages
    return [{**m, "content": ""} if m.get("content") is None else m for m in messages]


def _shape_arguments(messages: Messages, traits: Traits) -> Messages:
    """The arguments of tool calls as object or as text; what is no JSON stays as it is."""
    if traits.arguments is Arguments.ANY:
        return messages
    shape = _to_object if traits.arguments is Arguments.OBJECT else _to_text
    return [
        {**m, "tool_calls": [_with_arguments(call, shape) for call in m["tool_calls"]]}
        if m.get("tool_calls")
        else m
        for m in messages
    ]


def _with_arguments(call: dict[str, Any], shape: Callable[[Any], Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": shape(function["arguments"])}}


def _to_object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def _to_text(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _drop_words(messages: Messages, traits: Traits) -> Messages:
    """No text beside thoughts and calls where a template takes only one of both: with its thoughts
    a model goes on from the call's result."""
    if traits.takes_words:
        return messages
    return [
        {**m, "content": ""} if m.get("tool_calls") and m.get("reasoning_content") else m
        for m in messages
    ]


def _part_calls(messages: Messages, traits: Traits) -> Messages:
    """A message for each call, followed by its result, where a template writes one call a
    message."""
    if traits.takes_many_calls:
        return messages
    parted: Messages = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            parted.append(message)
            continue
        n_results = next((i for i, m in enumerate(rest) if m["role"] != "tool"), len(rest))
        results, rest = rest[:n_results], rest[n_results:]
        for i, call in enumerate(calls):
            said = message if i == 0 else {"role": message["role"], "content": ""}
            parted.append({**said, "tool_calls": [call]})
            parted += [result for j, result in enumerate(results) if _is_of(result, call, i == j)]
    return parted


def _is_of(result: dict[str, Any], call: dict[str, Any], is_at_its_place: bool) -> bool:
    """Whether a message is the result of a call; without ids they come in the calls' order."""
    asked, answered = call.get("id"), result.get("tool_call_id")
    return is_at_its_place if asked is None or answered is None else bool(asked == answered)


def _merge_system(messages: Messages, traits: Traits) -> Messages:
    """System text before the next user's, where a template has no place for it."""
    if traits.has_system:
        return messages
    merged: Messages = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(_as_text(message.get("content")))
        elif message["role"] == "user" and waiting:
            merged.append(_with_text_before("\n\n".join(waiting), message))
            waiting = []
        else:
            merged.append(message)
    if waiting:
        merged.append({"role": "user", "content": "\n\n".join(waiting)})
    return merged


def _with_text_before(text: str, message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": text}, *content]}
    return {**message, "content": f"{text}\n\n{content}" if content else text}


def _as_text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


ADAPTATIONS: tuple[Callable[[Messages, Traits], Messages], ...] = (
    _rename_roles,
    _name_reasoning,
    _shape_content,
    _fill_null,
    _shape_arguments,
    _drop_words,
    _part_calls,
    _merge_system,
)
