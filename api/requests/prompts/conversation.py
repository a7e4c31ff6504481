"""A chat as the chat template takes it: its messages, its tools, and the fields about the model's
thoughts, which are variables of the template.

Every API's parser makes the messages with the functions here; dllama.chat.messages checks what they
hold before a template sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.answers.events import Call
from api.answers.reasoning import ReasoningFormat
from api.requests.fields import Field, boolean, mapping, wrong
from api.requests.generation import GenerationRequest
from api.tools.tool_request import ToolRequest
from dllama.chat.adaptations import REASONING_KEYS
from dllama.errors import RequestError

TemplateMessage = dict[str, object]

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Arguments that a chat template's caller sets itself.
RESERVED_KWARGS = frozenset({"self", "messages", "tools", "add_generation_prompt"})


def message(role: object, content: object) -> TemplateMessage:
    """A message of a role that has nothing but text."""
    return {"role": role, "content": content}


def tool_result(call_id: str, content: str) -> TemplateMessage:
    """The result of the tool call `call_id`."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def assistant_message(text: str, thoughts: str, calls: Sequence[Call]) -> TemplateMessage:
    """A message of the assistant; its content is null where it only calls tools."""
    told = message("assistant", text)
    if thoughts:
        told["reasoning_content"] = thoughts
    if calls:
        told["content"] = text or None
        told["tool_calls"] = [tool_call(call) for call in calls]
    return told


def tool_call(call: Call) -> TemplateMessage:
    """A tool call as a message of the assistant has it."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages to render. `is_continued`: the last, of the assistant, is the beginning of the
    answer (continue_final_message)."""

    messages: list[TemplateMessage]
    kwargs: dict[str, object] = field(default_factory=dict)
    add_generation_prompt: bool = True
    is_continued: bool = False
    tools: ToolRequest = field(default_factory=ToolRequest)
    reasoning: ReasoningFormat = ReasoningFormat.AUTO


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for the next message of a conversation, whatever API it came by."""

    generation: GenerationRequest
    conversation: Conversation


def is_continued(
    messages: list[TemplateMessage], add: bool | None = None, continued: bool | None = None
) -> bool:
    """True if the answer continues the last message: it does if that is the assistant's, unless
    `add_generation_prompt` or `continue_final_message` say otherwise. Raises RequestError if the
    last message cannot be continued."""
    if continued is None:
        continued = messages[-1].get("role") == "assistant" and add is None
    if continued:
        _check_continued(messages, add)
    return continued


def _check_continued(messages: list[TemplateMessage], add: bool | None) -> None:
    last = messages[-1]
    if add:
        reason = "`add_generation_prompt` asks for a new message at the same time"
    elif last.get("role") != "assistant":
        reason = "it is not the assistant's"
    elif last.get("tool_calls"):
        reason = "it has tool calls"
    elif len(messages) > 1 and messages[-2].get("role") == "assistant":
        reason = "the one before it is the assistant's too"
    elif not last.get("content") and not has_thoughts(last):
        reason = "it has no content"
    else:
        return
    raise RequestError(
        f"The last message cannot be continued: {reason}. End with a user message, or with one "
        "assistant message that is the beginning of the answer.",
        param="messages",
    )


def has_thoughts(told: TemplateMessage) -> bool:
    return any(told.get(key) for key in REASONING_KEYS)


def continuation(value: object, name: str) -> bool | str:
    """Reads a boolean, or the name of the part of the last message that the answer continues."""
    if isinstance(value, str) and value in ("content", *REASONING_KEYS):
        return value
    if not isinstance(value, bool):
        raise wrong(name, "true, false, content or reasoning_content", value)
    return value


def ending_in(messages: list[TemplateMessage], part: bool | str | None) -> list[TemplateMessage]:
    """Returns the messages up to the part of the last one that is to be continued: thoughts end
    before the content."""
    if part not in REASONING_KEYS or not messages:
        return messages
    if not has_thoughts(messages[-1]):
        raise RequestError(
            f"`continue_final_message` is {part!r}, but the last message has no thoughts; send "
            "them as its `reasoning_content`.",
            param="continue_final_message",
        )
    return [*messages[:-1], {**messages[-1], "content": ""}]


def template_kwargs(value: object, name: str) -> dict[str, object]:
    """Reads arguments for the chat template, except those that the server sets."""
    kwargs = mapping(value, name)
    for key in kwargs:
        if key in RESERVED_KWARGS:
            raise RequestError(f"`{name}` may not set `{key}`; leave it out.", param=name)
    if "enable_thinking" in kwargs:  # "false" would be true for a template
        boolean(kwargs["enable_thinking"], f"{name}.enable_thinking")
    return kwargs


def reasoning_format(value: object, name: str) -> ReasoningFormat:
    if value not in list(ReasoningFormat):
        raise wrong(name, f"one of {', '.join(ReasoningFormat)}", value)
    return ReasoningFormat(str(value))


def effort(value: object, name: str) -> str:
    if value not in _EFFORTS:
        raise wrong(name, f"one of {', '.join(_EFFORTS)}", value)
    return str(value)


TEMPLATE_KWARGS: Field[dict[str, object], dict[str, object]] = Field(
    ("chat_template_kwargs",), template_kwargs, {}
)
ENABLE_THINKING = Field(("enable_thinking",), boolean, None)
REASONING_FORMAT = Field(("reasoning_format",), reasoning_format, ReasoningFormat.AUTO)
REASONING_EFFORT = Field(("reasoning_effort",), effort, None)

THINKING: tuple[Field[object, object], ...] = (
    TEMPLATE_KWARGS, ENABLE_THINKING, REASONING_FORMAT, REASONING_EFFORT,
)  # fmt: skip


def thinking_kwargs(
    kwargs: Mapping[str, object],
    enabled: bool | None,
    strength: str | None,
    effort_name: str = "reasoning_effort",
) -> dict[str, object]:
    """The variables of the chat template: `kwargs`, with `enable_thinking` and `reasoning_effort`
    as other fields of the request say. Raises RequestError if two of them disagree."""
    kwargs = dict(kwargs)
    if strength == "none":
        if enabled:
            raise _disagree(effort_name)
        enabled = False
    elif strength is not None and kwargs.setdefault("reasoning_effort", strength) != strength:
        raise _disagree(effort_name)
    if enabled is not None and kwargs.setdefault("enable_thinking", enabled) != enabled:
        raise _disagree("enable_thinking")
    return kwargs


def _disagree(name: str) -> RequestError:
    return RequestError(
        f"`{name}` and another field say different things about thinking; send one of them.",
        param=name,
    )
