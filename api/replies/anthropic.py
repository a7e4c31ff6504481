"""Answers of Anthropic's Messages API: the message, its events, its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from api.answers.events import (
    Event,
    Finish,
    Progress,
    Start,
    Text,
    Thought,
    ToolArguments,
    ToolCall,
    Usage,
    WholeAnswer,
)
from api.errors import ApiError
from api.replies.call_arguments import arguments_object
from api.replies.event_stream import SSE, Json, named_event
from dllama.logs.context import request_id
from dllama.requests import FinishReason

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


# Anthropic's clients may wait for its own event where others skip a comment.
EVENTS = replace(SSE, ping=named_event("ping", {"type": "ping"}))


def error_body(error: ApiError) -> Json:
    """Returns an error as Anthropic's clients read it, with the id of the request that is being
    answered; the sentence names the field at fault."""
    kind = ERROR_TYPES.get(error.status, "invalid_request_error")
    if error.status >= 500 and error.status not in ERROR_TYPES:
        kind = "api_error"
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message, "param": error.param},
        "request_id": request_id() or None,
    }


def usage_json(usage: Usage) -> Json:
    """Returns Anthropic's `usage`; tokens that were found in the cache are not input there."""
    return {
        "input_tokens": usage.n_prompt - usage.n_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.n_cached,
        "output_tokens": usage.n_completion,
    }


def stop_of(finish: Finish | None) -> Json:
    """Returns why the message ended."""
    assert finish is not None, "the message is complete"
    reason, word = "end_turn", None
    if finish.reason is FinishReason.LENGTH:
        reason = "max_tokens"
    elif finish.reason is FinishReason.STOP and finish.has_calls:
        reason = "tool_use"
    elif finish.reason is FinishReason.STOP and finish.stopping_word is not None:
        reason, word = "stop_sequence", finish.stopping_word
    return {"stop_reason": reason, "stop_sequence": word}


class AnthropicWriter:
    """Writes one choice as one message."""

    def __init__(self, message_id: str, model_id: str) -> None:
        self.id = message_id
        self._head: Json = {
            "id": message_id, "type": "message", "role": "assistant", "model": model_id,
        }  # fmt: skip
        self._block: str | None = None  # the type of the content block that is open
        self._index = -1  # of the newest content block
        self._finish: Finish | None = None

    # ---- a whole answer
    def whole(self, events: Sequence[Event]) -> Json:
        answer = WholeAnswer.of(events)
        [said] = answer.choices
        content: list[Json] = []
        if said.thoughts:
            content.append({"type": "thinking", "thinking": said.thoughts, "signature": ""})
        if said.text:
            content.append({"type": "text", "text": said.text})
        for call in said.calls:
            arguments = arguments_object(call.arguments)
            content.append(
                {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
            )
        ending = stop_of(said.finish)
        return {**self._head, "content": content, **ending, "usage": usage_json(answer.usage)}

    # ---- a stream
    def streamed(self, event: Event) -> bytes:
        if isinstance(event, Progress):
            return b""
        if isinstance(event, Finish):
            self._finish = event
            return b""
        return b"".join(self._events(event))

    def _events(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, Text):
            if self._block != "text":
                yield from self._open({"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": event.text})
        elif isinstance(event, Thought):
            if self._block != "thinking":
                yield from self._open({"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": event.text})
        elif isinstance(event, ToolCall):
            block: Json = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            yield from self._open(block)
        elif isinstance(event, ToolArguments):
            if event.text:
                yield self._delta({"type": "input_json_delta", "partial_json": event.text})
        elif isinstance(event, Start):
            yield self._start(event)
        elif isinstance(event, Usage):
            yield from self._end(event)

    def _start(self, start: Start) -> bytes:
        usage = {
            "input_tokens": start.n_prompt,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        }
        ending = {"stop_reason": None, "stop_sequence": None}
        return told(
            "message_start", message={**self._head, "content": [], **ending, "usage": usage}
        )

    def _open(self, block: Json) -> Iterator[bytes]:
        """Begins a content block, and ends the one before it."""
        yield from self._close()
        self._block = str(block["type"])
        self._index += 1
        yield told("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if self._block is None:
            return
        if self._block == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        yield told("content_block_stop", index=self._index)
        self._block = None

    def _delta(self, delta: Json) -> bytes:
        return told("content_block_delta", index=self._index, delta=delta)

    def _end(self, usage: Usage) -> Iterator[bytes]:
        yield from self._close()
        yield told("message_delta", delta=stop_of(self._finish), usage=usage_json(usage))
        yield told("message_stop")

    def failed(self, error: ApiError) -> bytes:
        return named_event("error", error_body(error))

    def ended(self) -> bytes:
        return b""  # message_stop or the error is the last event


def told(name: str, **fields: object) -> bytes:
    """Returns a server-sent event; its name is in its data too."""
    return named_event(name, {"type": name, **fields})
