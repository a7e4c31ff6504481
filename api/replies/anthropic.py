"""A chat answer in Anthropic's words: the message, its events, its errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from api.answers.sequence import TextSequence
from api.errors import ApiError
from api.replies.dialect import Event
from api.replies.openai import Json

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
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def error_body(error: ApiError) -> Json:
    """An error as Anthropic's clients read it; the field at fault is named in the sentence."""
    kind = ERROR_TYPES.get(error.status, "invalid_request_error")
    if error.status >= 500 and error.status not in ERROR_TYPES:
        kind = "api_error"
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message, "param": error.param},
    }


def usage_of(usage: Mapping[str, Any]) -> Json:
    """Tokens that were found in the cache do not count as input here."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage["completion_tokens"],
    }


class AnthropicDialect:
    """Retells one chat answer as one message."""

    def __init__(self, message_id: str, model: str) -> None:
        self._head: Json = {
            "id": message_id, "type": "message", "role": "assistant", "model": model,
        }  # fmt: skip
        self._sequences: Sequence[TextSequence] = ()
        self._is_open = False  # whether message_start is out
        self._kind: str | None = None  # of the block that is open
        self._call: object = None  # the tool call that the open block tells
        self._index = -1
        self._finish: str | None = None
        self._usage: Json = {}

    def watch(self, sequences: Sequence[TextSequence]) -> None:
        self._sequences = sequences

    def whole(self, said: Json) -> Json:
        answer: dict[str, Any] = said
        choice = answer["choices"][0]
        message = choice["message"]
        content: list[Json] = []
        if message.get("reasoning_content"):
            thought = message["reasoning_content"]
            content.append({"type": "thinking", "thinking": thought, "signature": ""})
        if message.get("content"):
            content.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = orjson.loads(function["arguments"] or "{}")
            content.append(
                {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
            )
        ending = self._ending(choice["finish_reason"])
        return {**self._head, "content": content, **ending, "usage": usage_of(answer["usage"])}

    def _ending(self, finish: str | None) -> Json:
        word = self._sequences[0].stopping_word if self._sequences else None
        if finish == "stop" and word is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": word}
        return {"stop_reason": STOP_REASONS.get(str(finish), "end_turn"), "stop_sequence": None}

    def events(self, chunk: Json) -> Iterator[Event]:
        told: dict[str, Any] = chunk
        yield from self._begin()
        if told.get("usage"):
            self._usage = usage_of(told["usage"])
        for choice in told["choices"]:
            delta = choice["delta"]
            if delta.get("reasoning_content"):
                yield from self._text("thinking", "thinking_delta", delta["reasoning_content"])
            if delta.get("content"):
                yield from self._text("text", "text_delta", delta["content"])
            for call in delta.get("tool_calls") or ():
                yield from self._tool(call)
            self._finish = choice["finish_reason"] or self._finish

    def _begin(self) -> Iterator[Event]:
        if self._is_open:
            return
        self._is_open = True
        usage = {
            "input_tokens": sum(s.n_prompt for s in self._sequences),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        }
        ending = {"stop_reason": None, "stop_sequence": None}
        message = {**self._head, "content": [], **ending, "usage": usage}
        yield event("message_start", message=message)

    def _open(self, kind: str, call: object, block: Json) -> Iterator[Event]:
        yield from self._close()
        self._kind, self._call = kind, call
        self._index += 1
        yield event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[Event]:
        if self._kind is None:
            return
        if self._kind == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        yield event("content_block_stop", index=self._index)
        self._kind = None

    def _delta(self, delta: Json) -> Event:
        return event("content_block_delta", index=self._index, delta=delta)

    def _text(self, kind: str, delta: str, text: str) -> Iterator[Event]:
        if self._kind != kind:
            signature = {"signature": ""} if kind == "thinking" else {}
            yield from self._open(kind, None, {"type": kind, kind: "", **signature})
        yield self._delta({"type": delta, kind: text})

    def _tool(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if self._kind != "tool_use" or self._call != call["index"]:
            block: Json = {
                "type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {},
            }  # fmt: skip
            yield from self._open("tool_use", call["index"], block)
        if function.get("arguments"):
            yield self._delta({"type": "input_json_delta", "partial_json": function["arguments"]})

    def ending(self) -> Iterator[Event]:
        yield from self._begin()
        yield from self._close()
        yield event("message_delta", delta=self._ending(self._finish), usage=self._usage)
        yield event("message_stop")

    def failing(self, error: ApiError) -> Iterable[Event]:
        return [Event("error", error_body(error))]


def event(name: str, **fields: object) -> Event:
    return Event(name, {"type": name, **fields})
