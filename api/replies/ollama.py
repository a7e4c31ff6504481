"""Answers of Ollama's /api/chat and /api/generate: whole, and in lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from api.answers.events import (
    Call,
    Event,
    Finish,
    Message,
    Probs,
    Progress,
    Start,
    Text,
    Thought,
    ToolArguments,
    Usage,
    WholeAnswer,
)
from api.errors import ApiError
from api.replies.call_arguments import arguments_object
from api.replies.event_stream import Json
from api.replies.logprobs import LogprobWriter
from dllama.requests import FinishReason

LOAD, UNLOAD = "load", "unload"
DONE_REASONS = {FinishReason.LENGTH: "length"}  # every other is "stop"


def now() -> str:
    """Returns the time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def error_body(error: ApiError) -> Json:
    """Returns an error as Ollama's clients read it."""
    return {"error": error.message}


def json_line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"


def nanoseconds(seconds: float) -> int:
    """Returns a time in ns, 1 at least: clients divide by it."""
    return max(1, round(seconds * 1e9))


class GenerateWriter:
    """Answers of /api/generate. `prompt_ids` are those that the answer's `context` begins with,
    None where it has none."""

    def __init__(
        self,
        answer_id: str,
        model_name: str,
        logprobs: LogprobWriter,
        prompt_ids: Sequence[int] | None = None,
    ) -> None:
        self.id = answer_id
        self._name = model_name
        self._logprobs = logprobs
        self._prompt_ids = prompt_ids
        self._began_at = time.perf_counter()
        self._said = Message()  # what a stream has told

    # ---- how the two routes differ
    def told(self, text: str, thoughts: str = "", calls: Sequence[tuple[int, Call]] = ()) -> Json:
        """Returns the fields that hold a part of the answer; calls have their numbers in it."""
        return {"response": text, **({"thinking": thoughts} if thoughts else {})}

    # ---- a stream
    def streamed(self, event: Event) -> bytes:
        if isinstance(event, Start | Progress):
            return b""
        if isinstance(event, Usage):
            return json_line(self._end(self._said, event, self.told("")))
        self._said.add(event)
        if isinstance(event, Finish):
            # Probabilities of tokens without a text of their own, such as the end of a character.
            return self._part(self.told(""), event.probs) if event.probs else b""
        if isinstance(event, Text):
            return self._part(self.told(event.text), event.probs)
        if isinstance(event, Thought):
            return self._part(self.told("", event.text), event.probs)
        if isinstance(event, ToolArguments) and event.is_end:
            made = (event.call, self._said.made[event.call])
            return self._part(self.told("", calls=[made]), event.probs)
        return self._part(self.told(""), event.probs) if event.probs else b""

    def failed(self, error: ApiError) -> bytes:
        return json_line(error_body(error))

    def ended(self) -> bytes:
        return b""  # readers look for `done`: true

    def _part(self, told: Json, probs: Probs) -> bytes:
        return json_line({**self.head(), **told, "done": False, **self._probabilities(probs)})

    # ---- a whole answer
    def whole(self, events: Sequence[Event]) -> Json:
        answer = WholeAnswer.of(events)
        [said] = answer.choices
        told = self.told(said.text, said.thoughts, list(enumerate(said.calls)))
        return self._end(said, answer.usage, told) | self._probabilities(said.probs)

    def loaded(self, reason: str) -> Json:
        """Returns the answer to a request without a prompt."""
        return {**self.head(), **self.told(""), "done": True, "done_reason": reason}

    def head(self) -> Json:
        return {"model": self._name, "created_at": now()}

    def _end(self, said: Message, usage: Usage, told: Json) -> Json:
        assert said.finish is not None, "the answer is complete"
        context: Json = {}
        if self._prompt_ids is not None:
            context = {"context": [*self._prompt_ids, *said.tokens]}
        return {
            **self.head(),
            **told,
            "done": True,
            "done_reason": DONE_REASONS.get(said.finish.reason, "stop"),
            **context,
            "total_duration": nanoseconds(time.perf_counter() - self._began_at),
            "load_duration": 1,  # the model is loaded before requests are taken
            "prompt_eval_count": usage.n_prompt,
            "prompt_eval_duration": nanoseconds(usage.prompt_s),
            "eval_count": usage.n_completion,
            "eval_duration": nanoseconds(usage.completion_s),
        }

    def _probabilities(self, probs: Probs) -> Json:
        return {"logprobs": self._logprobs.entries(probs)} if probs else {}


class ChatWriter(GenerateWriter):
    """Answers of /api/chat."""

    def told(self, text: str, thoughts: str = "", calls: Sequence[tuple[int, Call]] = ()) -> Json:
        message: Json = {"role": "assistant", "content": text}
        if thoughts:
            message["thinking"] = thoughts
        if calls:
            message["tool_calls"] = [tool_call(number, call) for number, call in calls]
        return {"message": message}


def tool_call(number: int, call: Call) -> Json:
    """Returns a complete call, whose arguments are an object."""
    arguments = arguments_object(call.arguments)
    return {"id": call.id, "function": {"index": number, "name": call.name, "arguments": arguments}}
