"""Answers of OpenAI's Responses API: the response, and its events in order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from api.answers.events import (
    Event,
    Message,
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
from api.replies.event_stream import Json, named_event
from api.replies.timings import progress_of, timings_of
from dllama.requests import FinishReason

OnComplete = Callable[[Json, Message], None]


def usage_json(usage: Usage) -> Json:
    return {
        "input_tokens": usage.n_prompt,
        "input_tokens_details": {"cached_tokens": usage.n_cached, "cache_write_tokens": 0},
        "output_tokens": usage.n_completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.n_prompt + usage.n_completion,
    }


def item_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class ResponsesWriter:
    """Writes one choice as one response; `on_complete` is called with the complete response and
    the message that it holds."""

    def __init__(
        self, response_id: str, model_id: str, echo: Json, on_complete: OnComplete | None
    ) -> None:
        self.id = response_id
        self._response: Json = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": model_id,
            "output": [],
            "usage": None,
            **echo,
        }
        self._on_complete = on_complete
        self._output: list[dict[str, Any]] = []
        self._said = Message()
        self._number = 0  # of the next event
        self._is_item_open = False
        self._timings: Json = {}  # of the event that is written, if the request wants them

    @property
    def _is_cut(self) -> bool:
        finish = self._said.finish
        return finish is not None and finish.reason is FinishReason.LENGTH

    def _complete(self, usage: Usage) -> Json:
        """The response once nothing follows."""
        if self._is_cut and self._output:
            self._output[-1]["status"] = "incomplete"
        self._response |= {
            "status": "incomplete" if self._is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if self._is_cut else None,
            "completed_at": None if self._is_cut else int(time.time()),
            "output": self._output,
            "usage": usage_json(usage),
        }
        if self._on_complete is not None:
            self._on_complete(self._response, self._said)
        return self._response

    # ---- a whole answer
    def whole(self, events: Sequence[Event]) -> Json:
        answer = WholeAnswer.of(events)
        [self._said] = answer.choices
        if self._said.thoughts:
            self._output.append(reasoning_item(self._said.thoughts, "completed"))
        if self._said.text:
            self._output.append(message_item(self._said.text, "completed"))
        for call in self._said.calls:
            self._output.append(call_item(call.id, call.name, call.arguments, "completed"))
        return {**self._complete(answer.usage), "timings": timings_of(answer.usage)}

    # ---- a stream
    def streamed(self, event: Event) -> bytes:
        self._said.add(event)
        usage = getattr(event, "usage", None)
        self._timings = {} if usage is None else {"timings": timings_of(usage)}
        return b"".join(self._events(event))

    def _events(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, Text):
            yield from self._add_text("message", event.text)
        elif isinstance(event, Thought):
            yield from self._add_text("reasoning", event.text)
        elif isinstance(event, ToolCall):
            yield from self._open_item(call_item(event.id, event.name, "", "in_progress"))
        elif isinstance(event, ToolArguments):
            if event.text:
                self._output[-1]["arguments"] += event.text
                name = "response.function_call_arguments.delta"
                yield self._event(name, **self._at, delta=event.text)
        elif isinstance(event, Start):
            yield self._event("response.created", response=self._response)
            yield self._event("response.in_progress", response=self._response)
        elif isinstance(event, Progress):
            told = {"prompt_progress": progress_of(event), **self._timings}
            yield self._event("response.in_progress", response=self._response, **told)
        elif isinstance(event, Usage):
            yield from self._close_item()
            whole = self._complete(event)
            timings = timings_of(event)
            yield self._event(f"response.{whole['status']}", response=whole, timings=timings)

    def _event(self, name: str, /, **fields: object) -> bytes:
        number, self._number = self._number, self._number + 1
        return named_event(name, {"type": name, "sequence_number": number, **fields})

    @property
    def _at(self) -> Json:
        """Where the open item is."""
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _open_item(self, item: dict[str, Any]) -> Iterator[bytes]:
        """Begins an item, and ends the one before it."""
        yield from self._close_item()
        self._output.append(item)
        self._is_item_open = True
        index = len(self._output) - 1
        shown = dict(item)
        if "content" in item:
            shown["content"] = []
        yield self._event("response.output_item.added", output_index=index, item=shown)
        if "content" in item:
            part = item["content"][0]
            yield self._event("response.content_part.added", **self._at, content_index=0, part=part)

    def _add_text(self, kind: str, text: str) -> Iterator[bytes]:
        if not self._is_item_open or self._output[-1]["type"] != kind:
            make = message_item if kind == "message" else reasoning_item
            yield from self._open_item(make("", "in_progress"))
        self._output[-1]["content"][0]["text"] += text
        name, more = TEXT_EVENTS[kind]
        more = {**more, **self._timings}
        yield self._event(f"response.{name}.delta", **self._at, content_index=0, delta=text, **more)

    def _close_item(self) -> Iterator[bytes]:
        if not self._is_item_open:
            return
        self._is_item_open = False
        item = self._output[-1]
        item["status"] = "incomplete" if self._is_cut else "completed"
        if item["type"] == "function_call":
            name = "response.function_call_arguments.done"
            yield self._event(name, **self._at, name=item["name"], arguments=item["arguments"])
        else:
            part = item["content"][0]
            name, more = TEXT_EVENTS[item["type"]]
            text = part["text"]
            yield self._event(
                f"response.{name}.done", **self._at, content_index=0, text=text, **more
            )
            yield self._event("response.content_part.done", **self._at, content_index=0, part=part)
        index = len(self._output) - 1
        yield self._event("response.output_item.done", output_index=index, item=item)

    def failed(self, error: ApiError) -> bytes:
        told = {"code": error.code or "server_error", "message": error.message}
        failed = {**self._response, "status": "failed", "error": told, "output": self._output}
        return self._event("response.failed", response=failed)

    def ended(self) -> bytes:
        return b""  # response.completed, .incomplete or .failed is the last event


# The names of a text's events, and their additional fields.
TEXT_EVENTS: dict[str, tuple[str, Json]] = {
    "message": ("output_text", {"logprobs": []}),
    "reasoning": ("reasoning_text", {}),
}


def message_item(text: str, status: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": item_id("msg"), "type": "message", "role": "assistant", "status": status,
        "content": [part],
    }  # fmt: skip


def reasoning_item(text: str, status: str) -> Json:
    part = {"type": "reasoning_text", "text": text}
    return {
        "id": item_id("rs"), "type": "reasoning", "status": status, "summary": [],
        "content": [part], "encrypted_content": None,
    }  # fmt: skip


def call_item(call_id: str, name: str, arguments: str, status: str) -> Json:
    return {
        "id": item_id("fc"),
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }
