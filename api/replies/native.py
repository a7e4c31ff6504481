"""Answers of /completion and /infill, as llama-server gives them: whole, and in chunks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from api.answers.events import Event, Finish, Message, Probs, Progress, Start, Text, Usage
from api.errors import ApiError
from api.replies.event_stream import Json, data_event
from api.replies.logprobs import LogprobWriter
from api.replies.openai import progress_of, timings_of
from api.requests.native import NativeRequest
from api.served_model import ServedModel
from dllama.requests import FinishReason, SamplingParams

# SamplingParams are told under llama-server's names, which are ours but for these.
SETTING_NAMES = {"dry_phrases": None, "dry_breakers": None, "logit_bias": None}


def generation_settings(
    wanted: NativeRequest, sampling: SamplingParams, stops: Sequence[str]
) -> Json:
    """Returns how the answer was made; minus infinity is null, as JSON has none."""
    told = {f.name: getattr(sampling, f.name) for f in fields(SamplingParams)}
    settings: dict[str, Any] = {k: v for k, v in told.items() if SETTING_NAMES.get(k, k)}
    settings |= {
        "n_probs": sampling.n_probs or 0,
        "dry_sequence_breakers": list(wanted.generation.breakers),
        "logit_bias": [
            {"token": token, "bias": bias if math.isfinite(bias) else None}
            for token, bias in sampling.logit_bias.items()
        ],
        "stop": list(stops),
        "max_tokens": wanted.n_predict,
        "n_predict": wanted.n_predict,
        "ignore_eos": wanted.generation.ignore_eos,
        "stream": wanted.generation.stream,
        "timings_per_token": wanted.generation.timings_per_token,
        "lora": [],
        "speculative.n_max": wanted.generation.options.draft_max,
        "speculative.n_min": wanted.generation.options.draft_min,
        "speculative.p_min": wanted.generation.options.draft_p_min,
    }
    return settings


class NativeWriter:
    """Writes every choice as an object of its own; `is_list` if they are answered as an array."""

    def __init__(
        self,
        answer_id: str,
        model: ServedModel,
        wanted: NativeRequest,
        prompts: Sequence[Sequence[int]],
        samplings: Sequence[SamplingParams],
        *,
        is_list: bool,
    ) -> None:
        self.id = answer_id
        self._model, self._wanted, self._prompts = model, wanted, prompts
        self._samplings = samplings  # of the choices that share a prompt
        self._is_list = is_list
        request = wanted.generation
        is_post = bool(request.sampling.get("post_sampling_probs"))
        self._logprobs = LogprobWriter(request.logprobs, model.tokenizer, is_post)
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
        return data_event(error.body())

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
        usage = finish.usage
        text = said.text if wanted.n_predict else ""
        tokens = said.tokens if wanted.return_tokens and wanted.n_predict else []
        n_known = usage.n_prompt + usage.n_completion
        is_limit = finish.reason is FinishReason.LENGTH
        word = None if is_limit else finish.stopping_word
        n = wanted.generation.n
        sampling, prompt = self._samplings[index % n], self._prompts[index // n]
        answer: Json = {
            **self._head(index, is_end=True),
            "content": "" if is_stream else text,
            "tokens": [] if is_stream else tokens,
            "model": self._model.id,
            "generation_settings": generation_settings(wanted, sampling, wanted.generation.stops),
            "prompt": self._model.tokenizer.decode(prompt, is_continuation=True),
            "has_new_line": "\n" in text,
            "truncated": is_limit and n_known >= self._model.max_seq_len,
            "stop_type": "limit" if is_limit else "word" if word else "eos",
            "stopping_word": word or "",
            "tokens_cached": n_known - min(1, usage.n_completion),
            "timings": self._timings(usage),
            **self._probabilities(finish.probs if is_stream else said.probs),
        }
        return picked(answer, wanted.response_fields)


def picked(answer: Json, names: Sequence[str]) -> Json:
    """Returns the fields of `names`, all if there are none; "a/b" is b of a, under the name b.
    Unknown names are ignored."""
    if not names:
        return answer
    found: Json = {}
    for name in names:
        value: object = answer
        *_, last = path = name.split("/")
        for key in path:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        if value is not MISSING:
            found[last] = value
    return found


MISSING = object()
