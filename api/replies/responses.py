"""A chat answer as OpenAI's Responses API tells it: the response, and its events in order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from api.answers.sequence import TextSequence
from api.errors import ApiError
from api.replies.dialect import Event
from api.replies.openai import Json

OnComplete = Callable[[Json], None]


def usage_of(usage: Mapping[str, Any]) -> Json:
    details = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }


def item_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class ResponsesDialect:
    """Retells one chat answer as one response; `on_complete` hears it when it is whole."""

    def __init__(
        self, response_id: str, model: str, echo: Json, on_complete: OnComplete | None
    ) -> None:
        self._response: Json = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "usage": None,
            **echo,
        }
        self._on_complete = on_complete
        self._output: list[dict[str, Any]] = []
        self._number = 0  # of the next event
        self._is_open = False
        self._call: object = None  # the tool call that the last item is
        self._is_item_open = False
        self._finish: str | None = None
        self._more: Json = {}

    def watch(self, sequences: Sequence[TextSequence]) -> None:
        pass  # chat objects say all that is told here

    def whole(self, said: Json) -> Json:
        answer: dict[str, Any] = said
        [choice] = answer["choices"]
        message = choice["message"]
        if message.get("reasoning_content"):
            self._output.append(reasoning_item(message["reasoning_content"], "completed"))
        if message.get("content"):
            self._output.append(message_item(message["content"], "completed"))
        for call in message.get("tool_calls") or ():
            self._output.append(call_item(call, "completed"))
        self._finish = choice["finish_reason"]
        return self._finished(usage_of(answer["usage"]), {"timings": answer.get("timings")})

    def _finished(self, usage: Json | None, more: Json) -> Json:
        """The response once nothing follows; it is told to whoever keeps it."""
        is_cut = self._finish == "length"
        if is_cut and self._output:
            self._output[-1]["status"] = "incomplete"
        self._response |= {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "completed_at": None if is_cut else int(time.time()),
            "output": self._output,
            "usage": usage,
        }
        if self._on_complete is not None:
            self._on_complete(self._response)
        return {**self._response, **more}

    # ---- events
    def _event(self, name: str, /, **fields: object) -> Event:
        number, self._number = self._number, self._number + 1
        return Event(name, {"type": name, "sequence_number": number, **fields})

    def _begin(self) -> Iterator[Event]:
        if not self._is_open:
            self._is_open = True
            yield self._event("response.created", response=dict(self._response))
            yield self._event("response.in_progress", response=dict(self._response))

    def events(self, chunk: Json) -> Iterator[Event]:
        told: dict[str, Any] = chunk
        yield from self._begin()
        if told.get("usage"):
            self._response["usage"] = usage_of(told["usage"])
        if told.get("timings"):
            self._more = {"timings": told["timings"]}
        for choice in told["choices"]:
            delta = choice["delta"]
            if delta.get("reasoning_content"):
                yield from self._add_text("reasoning", delta["reasoning_content"])
            if delta.get("content"):
                yield from self._add_text("message", delta["content"])
            for call in delta.get("tool_calls") or ():
                yield from self._add_call(call)
            self._finish = choice["finish_reason"] or self._finish

    @property
    def _at(self) -> Json:
        """Where the open item is."""
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _open_item(self, item: dict[str, Any], call: object = None) -> Iterator[Event]:
        yield from self._close_item()
        self._output.append(item)
        self._call, self._is_item_open = call, True
        index = len(self._output) - 1
        shown = dict(item)
        if "content" in item:
            shown["content"] = []
        yield self._event("response.output_item.added", output_index=index, item=shown)
        if "content" in item:
            part = dict(item["content"][0])
            yield self._event("response.content_part.added", **self._at, content_index=0, part=part)

    def _add_text(self, kind: str, text: str) -> Iterator[Event]:
        if not self._is_item_open or self._output[-1]["type"] != kind:
            make = message_item if kind == "message" else reasoning_item
            yield from self._open_item(make("", "in_progress"))
        self._output[-1]["content"][0]["text"] += text
        name, more = TEXT_EVENTS[kind]
        yield self._event(f"response.{name}.delta", **self._at, content_index=0, delta=text, **more)

    def _add_call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        if not self._is_item_open or self._call != call["index"] or not self._is_call:
            yield from self._open_item(call_item(call, "in_progress"), call["index"])
            self._output[-1]["arguments"] = ""
        arguments = (call.get("function") or {}).get("arguments")
        if arguments:
            self._output[-1]["arguments"] += arguments
            name = "response.function_call_arguments.delta"
            yield self._event(name, **self._at, delta=arguments)

    @property
    def _is_call(self) -> bool:
        return bool(self._output[-1]["type"] == "function_call")

    def _close_item(self) -> Iterator[Event]:
        if not self._is_item_open:
            return
        self._is_item_open = False
        item = self._output[-1]
        item["status"] = "incomplete" if self._finish == "length" else "completed"
        if self._is_call:
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

    def ending(self) -> Iterator[Event]:
        yield from self._begin()
        yield from self._close_item()
        usage: Any = self._response["usage"]
        whole = self._finished(usage, {})
        yield self._event(f"response.{whole['status']}", response=whole, **self._more)

    def failing(self, error: ApiError) -> Iterable[Event]:
        yield from self._begin()
        told = {"code": error.code or "server_error", "message": error.message}
        failed = {**self._response, "status": "failed", "error": told, "output": self._output}
        yield self._event("response.failed", response=failed)


# The names of a text's events, and what they have besides.
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


def call_item(call: Mapping[str, Any], status: str) -> Json:
    function = call.get("function") or {}
    return {
        "id": item_id("fc"),
        "type": "function_call",
        "status": status,
        "call_id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments") or "",
    }
