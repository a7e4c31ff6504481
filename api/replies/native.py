"""Answers of /completion and /infill, as llama-server gives them: whole, and in chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from api.answers.events import Event, Finish, Message, Probs, Progress, Start, Text, Usage
from api.errors import ApiError
from api.replies.event_stream import Json, data_event
from api.replies.logprobs import LogprobWriter
from api.replies.made import Made
from api.replies.timings import progress_of, timings_of
from api.requests.native import NativeRequest


class NativeWriter:
    """Writes every choice as an object of its own; `is_list` if they are answered as an array."""

    def __init__(self, answer_id: str, made: Made, wanted: NativeRequest, *, is_list: bool) -> None:
        self.id = answer_id
        self._made, self._wanted = made, wanted
        self._is_list = is_list
        request = wanted.generation
        is_post = bool(request.sampling.get("post_sampling_probs"))
        self._logprobs = LogprobWriter(request.logprobs, made.model.tokenizer, is_post)
        self._slots: dict[int, int | None] = {}  # of each choice
        self._n_prompt: dict[int, int] = {}
        self._said: dict[int, Message] = defaultdict(Message)  # what a stream has told

    def whole(self, events: Sequence[Event]) -> object:
        for event in events:
            self._note(event)
        answers = [self._answer(index, is_stream=False) for index in sorted(self._n_prompt)]
        return answers if self._is_list else answers[0]

    def streamed(self, event: Event) -> bytes:
        self._note(event)
        if isinstance(event, Text):
            if not self._wanted.n_predict:
                return b""
            told: Json = {"content": event.text, "tokens": event.tokens}
            return self._chunk(event, told, self._probabilities(event.probs))
        if isinstance(event, Progress):
            news: Json = {"content": "", "tokens": [], "prompt_progress": progress_of(event)}
            return self._chunk(event, news, {})
        if isinstance(event, Finish):
            return data_event(self._answer(event.index, is_stream=True))
        return b""

    def failed(self, error: ApiError) -> bytes:
        return data_event(error.body(has_number=True))

    def ended(self) -> bytes:
        return b""  # readers look for `stop`: true

    def _note(self, event: Event) -> None:
        if isinstance(event, Start):
            self._slots[event.index] = event.slot
            self._n_prompt[event.index] = event.n_prompt
        elif not isinstance(event, Usage):
            self._said[event.index].add(event)
        if isinstance(event, Finish):
            self._slots[event.index] = event.slot

    def _head(self, index: int, *, is_end: bool) -> Json:
        asked, slot = self._wanted.id_slot, self._slots[index]
        return {
            "index": index,
            "stop": is_end,
            "id_slot": slot if asked < 0 and slot is not None else asked,
            "tokens_predicted": len(self._said[index].tokens) if self._wanted.n_predict else 0,
            "tokens_evaluated": self._n_prompt[index],
        }

    def _chunk(self, event: Text | Progress, told: Json, more: Json) -> bytes:
        """Returns a piece of the answer, or progress of the prompt."""
        timings = {} if event.usage is None else {"timings": self._timings(event.usage)}
        return data_event({**self._head(event.index, is_end=False), **told, **timings, **more})

    def _probabilities(self, told: Probs) -> Json:
        """Returns `completion_probabilities` of these tokens, if they are wanted."""
        if not told or not self._wanted.n_predict:
            return {}
        return {"completion_probabilities": self._logprobs.entries(told)}

    def _timings(self, usage: Usage) -> Json:
        timings = timings_of(usage)
        if self._wanted.n_predict == 0:
            timings |= dict.fromkeys((key for key in timings if key.startswith("predicted_")), 0)
        return timings

    def _answer(self, index: int, *, is_stream: bool) -> Json:
        """Returns a complete choice; at the end of a stream without what its chunks have."""
        said, finish, wanted = self._said[index], self._said[index].finish, self._wanted
        assert finish is not None, "the choice is complete"
        answer: Json = {
            **self._made.final(index, said, None),
            **self._head(index, is_end=True),
            "timings": self._timings(finish.usage),
            **self._probabilities(finish.probs if is_stream else said.probs),
        }
        if is_stream or not wanted.n_predict:
            answer["content"] = ""
        if is_stream or not (wanted.return_tokens and wanted.n_predict):
            answer["tokens"] = []
        return picked(answer, wanted.response_fields)


def picked(answer: Json, names: Sequence[str]) -> Json:
    """Returns the fields of `names`, all if there are none; "a/b" is b of a, and the key is all of
    that. Unknown names are ignored."""
    if not names:
        return answer
    found: Json = {}
    for name in names:
        value: object = answer
        for key in name.split("/"):
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        if value is not MISSING:
            found[name] = value
    return found


MISSING = object()
