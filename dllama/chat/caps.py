"""What a chat template can show of a conversation, told under llama-server's names: found by
rendering small conversations with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from dllama.chat.traits import PROBE_TOOL
from dllama.errors import TemplateError

Message = Mapping[str, object]

_USER = {"role": "user", "content": "Qusertext"}
_SYSTEM = {"role": "system", "content": "Qsystemtext"}
_THOUGHT = "Qthoughttext"
_CALL_IDS = ("abcdef123", "abcdef456")  # nine letters and digits, as Mistral's templates want them


class Renderer(Protocol):
    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: object,
    ) -> str: ...


def template_caps(template: Renderer) -> dict[str, bool]:
    """Returns llama-server's `chat_template_caps`. Content in parts and arguments as text or as an
    object are taken with any template: messages are adapted to it before it sees them."""

    def text(messages: Sequence[Message], **more: object) -> str:
        tools = [PROBE_TOOL] if more.pop("has_tools", False) else None
        try:
            return template.render(messages, tools, False, **more)
        except TemplateError:
            return ""

    def anywhere(messages: Sequence[Message]) -> str:
        return text(messages) + text(messages, has_tools=True)  # some are for tools only

    one, two = _called(1), _called(2)
    with_tools = text([_USER], has_tools=True)
    called, called_twice = text(one, has_tools=True), text(two, has_tools=True)
    thoughtful = {"role": "assistant", "content": "Qanswer", "reasoning_content": _THOUGHT}
    efforts = [text([_USER], reasoning_effort=effort) for effort in ("low", "high")]
    return {
        "supports_string_content": True,
        "supports_typed_content": True,
        "supports_tools": "qtool" in with_tools,
        "supports_tool_calls": "Qvalue1" in called,
        "supports_parallel_tool_calls": "Qvalue1" in called_twice and "Qvalue2" in called_twice,
        "supports_system_role": "Qsystemtext" in anywhere([_SYSTEM, _USER]),
        "supports_preserve_reasoning": _THOUGHT in anywhere([_USER, thoughtful, _USER]),
        "supports_reasoning_effort": efforts[0] != efforts[1],
        "supports_object_arguments": "Qvalue1" in called,
    }


def _called(n: int) -> list[Message]:
    """A conversation in which `n` calls of the probe's tool were made at once, and answered."""
    calls = [
        {
            "id": _CALL_IDS[i],
            "type": "function",
            "function": {"name": "qtool", "arguments": f'{{"qkey": "Qvalue{i + 1}"}}'},
        }
        for i in range(n)
    ]
    results: list[Message] = [
        {"role": "tool", "tool_call_id": _CALL_IDS[i], "name": "qtool", "content": "Qresult"}
        for i in range(n)
    ]
    return [_USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
