"""The objects that generating routes answer with, as OpenAI documents them: whole and in chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from api.answers.sequence import TextSequence

Json = dict[str, object]


class Reply(Protocol):
    """How one route dresses an answer."""

    @property
    def id(self) -> str: ...

    def opening(self, index: int) -> Json | None:
        """The first chunk of a choice, before any text."""
        ...

    def delta(self, index: int, text: str) -> Json:
        """A chunk of text; valid until the next call, for it is the same object every time."""
        ...

    def part(self, index: int, delta: Json) -> Json:
        """A chunk of a message that is told apart: thoughts, content, a part of a tool call."""
        ...

    def closing(self, index: int, finish: str) -> Json: ...

    def usage_chunk(self, usage: Json) -> Json: ...

    def whole(self, choices: Sequence[tuple[str | Json, str]], usage: Json) -> Json:
        """The answer to a request that does not stream, from (text or message, finish reason)
        pairs."""
        ...


class ChatReply:
    """`chat.completion` and its chunks."""

    def __init__(self, answer_id: str, head: Json, *, include_usage: bool) -> None:
        self.id = answer_id
        self._head = {"id": answer_id, "object": "chat.completion", **head}
        self._chunk_head = {"id": answer_id, "object": "chat.completion.chunk", **head}
        if include_usage:
            self._chunk_head["usage"] = None
        self._content: Json = {"content": ""}
        self._choice: Json = {
            "index": 0, "delta": self._content, "logprobs": None, "finish_reason": None,
        }  # fmt: skip
        self._delta: Json = {**self._chunk_head, "choices": [self._choice]}

    def _chunk(self, index: int, delta: Json, finish: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._chunk_head, "choices": [choice]}

    def opening(self, index: int) -> Json | None:
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def delta(self, index: int, text: str) -> Json:
        self._choice["index"] = index
        self._content["content"] = text
        return self._delta

    def part(self, index: int, delta: Json) -> Json:
        return self._chunk(index, delta, None)

    def closing(self, index: int, finish: str) -> Json:
        return self._chunk(index, {}, finish)

    def usage_chunk(self, usage: Json) -> Json:
        return {**self._chunk_head, "choices": [], "usage": usage}

    def whole(self, choices: Sequence[tuple[str | Json, str]], usage: Json) -> Json:
        dressed = [
            {
                "index": index,
                "message": message_of(said),
                "logprobs": None,
                "finish_reason": finish,
            }
            for index, (said, finish) in enumerate(choices)
        ]
        return {**self._head, "choices": dressed, "usage": usage}


def message_of(said: str | Json) -> Json:
    """The assistant's message that a text is; a message is one already."""
    if isinstance(said, str):
        return {"role": "assistant", "content": said, "refusal": None}
    return said


class TextReply:
    """`text_completion`, whose chunks have the same name."""

    def __init__(self, answer_id: str, head: Json, *, include_usage: bool) -> None:
        self.id = answer_id
        self._head = {"id": answer_id, "object": "text_completion", **head}
        self._chunk_head = {**self._head, "usage": None} if include_usage else self._head
        self._choice: Json = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
        self._delta: Json = {**self._chunk_head, "choices": [self._choice]}

    def opening(self, index: int) -> Json | None:
        return None

    def delta(self, index: int, text: str) -> Json:
        self._choice["index"] = index
        self._choice["text"] = text
        return self._delta

    def part(self, index: int, delta: Json) -> Json:
        return self.delta(index, str(delta.get("content", "")))

    def closing(self, index: int, finish: str) -> Json:
        return {**self._chunk_head, "choices": [text_choice(index, "", finish)]}

    def usage_chunk(self, usage: Json) -> Json:
        return {**self._chunk_head, "choices": [], "usage": usage}

    def whole(self, choices: Sequence[tuple[str | Json, str]], usage: Json) -> Json:
        dressed = [text_choice(i, str(said), finish) for i, (said, finish) in enumerate(choices)]
        return {**self._head, "choices": dressed, "usage": usage}


def text_choice(index: int, text: str, finish: str) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def usage_of(sequences: Sequence[TextSequence], n: int) -> Json:
    """Tokens read and written; a prompt that n sequences share counts once."""
    firsts = sequences[::n]
    n_prompt = sum(sequence.n_prompt for sequence in firsts)
    n_completion = sum(sequence.n_completion for sequence in sequences)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": sum(s.n_cached for s in firsts)},
    }


def timings_of(sequences: Sequence[TextSequence], n: int) -> Json:
    """llama-server's `timings`: the first token belongs to the prompt, so that rates are honest.

    Of several sequences, counts are added and times are those of the slowest.
    """
    firsts = sequences[::n]
    n_cached = sum(sequence.n_cached for sequence in firsts)
    n_prompt = sum(sequence.n_prompt for sequence in firsts) - n_cached
    n_predicted = sum(sequence.n_completion for sequence in sequences)
    n_timed = sum(max(0, sequence.n_completion - 1) for sequence in sequences)
    times = [(s.submitted_at, s.first_at or s.submitted_at, s.last_at) for s in sequences]
    prompt_ms = 1000 * max(first - submitted for submitted, first, _ in times)
    predicted_ms = 1000 * max(max(0.0, last - first) for _, first, last in times)
    n_drafted = sum(sequence.n_drafted for sequence in sequences)
    n_accepted = sum(sequence.n_accepted for sequence in sequences)
    guesses: Json = {"draft_n": n_drafted, "draft_n_accepted": n_accepted} if n_drafted else {}
    return {
        "cache_n": n_cached,
        "prompt_n": n_prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": ratio(prompt_ms, n_prompt),
        "prompt_per_second": ratio(1000 * n_prompt, prompt_ms),
        "predicted_n": n_predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": ratio(predicted_ms, n_timed),
        "predicted_per_second": ratio(1000 * n_timed, predicted_ms),
        **guesses,
    }


def progress_of(sequence: TextSequence) -> Json:
    """llama-server's `prompt_progress`: tokens of the prompt that are in the cache, and the
    milliseconds since the request was handed to the engine."""
    return {
        "total": sequence.n_prompt,
        "cache": sequence.n_cached,
        "processed": min(sequence.n_computed, sequence.n_prompt),
        "time_ms": 1000 * (time.perf_counter() - sequence.submitted_at),
    }


def ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
