"""A chat as the chat template takes it: its messages, its tools, and how it is to be rendered.

Every API's parser makes the messages with the functions here; what they must hold is checked by
dllama.chat.messages before a template sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.answers.events import Call
from api.answers.reasoning import ReasoningFormat
from api.requests.generation import GenerationRequest
from api.tools.tool_request import ToolRequest
from dllama.errors import RequestError

TemplateMessage = dict[str, object]


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
    elif not last.get("content"):
        reason = "it has no content"
    else:
        return
    raise RequestError(
        f"The last message cannot be continued: {reason}. End with a user message, or with one "
        "assistant message that is the beginning of the answer.",
        param="messages",
    )
