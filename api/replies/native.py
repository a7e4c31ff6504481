"""Answers of /completion and /infill, as llama-server gives them: whole, and in chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from api.answers.line_rules import LineRules
from api.answers.sequence import TextSequence
from api.replies.logprobs import LogprobStyle
from api.replies.openai import Json, progress_of, timings_of
from api.requests.native import NativeRequest
from api.served_model import ServedModel
from dllama.requests import FinishReason, SamplingParams

# SamplingParams are told under llama-server's names, which are ours but for these.
SETTING_NAMES = {"dry_phrases": None, "dry_breakers": None, "logit_bias": None}


def generation_settings(
    wanted: NativeRequest, sampling: SamplingParams, stops: Sequence[str]
) -> Json:
    """How the answer was made; minus infinity is null, as JSON has none."""
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
        "speculative.n_max": wanted.generation.drafting.n_max,
        "speculative.n_min": wanted.generation.drafting.n_min,
        "speculative.p_min": wanted.generation.drafting.p_min,
    }
    return settings


class NativeAnswer:
    """One sequence of a native request, told as it comes."""

    def __init__(
        self, sequence: TextSequence, wanted: NativeRequest, model: ServedModel, settings: Json,
        prompt: Sequence[int],
    ) -> None:  # fmt: skip
        self.sequence = sequence
        self._wanted, self._model, self._settings = wanted, model, settings
        self._prompt = prompt
        limit = wanted.t_max_predict_ms
        self._rules = LineRules(wanted.n_indent, limit / 1000 if limit > 0 else None)
        self._texts: list[str] = []
        self._n_told = 0  # tokens that chunks have told

    def take(self, text: str) -> str:
        """What of the next piece of text stays; ends the sequence where a rule says so."""
        sequence = self.sequence
        if self._wanted.n_predict == 0:
            return ""
        elapsed_s = sequence.last_at - (sequence.first_at or sequence.last_at)
        kept = self._rules.push(text, elapsed_s)
        if self._rules.has_ended and sequence.finish is None:
            sequence.close()
            sequence.finish = FinishReason.LENGTH
        if sequence.finish is not None:
            kept += self._rules.flush()
        self._texts.append(kept)
        return kept

    @property
    def _n_predicted(self) -> int:
        return self.sequence.n_completion if self._wanted.n_predict else 0

    @property
    def _slot(self) -> int:
        """The number that was asked for, or else the one it happens to have while it is open."""
        slot = self.sequence.slot
        return slot if self._wanted.id_slot < 0 and slot is not None else self._wanted.id_slot

    def _head(self, *, is_end: bool) -> Json:
        return {
            "index": self.sequence.index,
            "stop": is_end,
            "id_slot": self._slot,
            "tokens_predicted": self._n_predicted,
            "tokens_evaluated": self.sequence.n_prompt,
        }

    def chunk(self, text: str) -> Json:
        """A piece of the answer, or news of the prompt."""
        sequence = self.sequence
        tokens = sequence.tokens[self._n_told :] if self._wanted.n_predict else []
        self._n_told += len(tokens)
        chunk = {**self._head(is_end=False), "content": text, "tokens": tokens}
        if not text and not tokens:
            chunk["prompt_progress"] = progress_of(sequence)
        if self._wanted.generation.timings_per_token:
            chunk["timings"] = self.timings()
        return chunk | self.probabilities()

    def probabilities(self) -> Json:
        """`completion_probabilities` of what was told since the last call, if they are wanted."""
        style = self._wanted.generation.logprobs
        told: Any = self.sequence.take_logprobs(style)
        if style is not LogprobStyle.NATIVE or told is None or not self._wanted.n_predict:
            return {}
        return {"completion_probabilities": told["content"]}

    def timings(self) -> Json:
        told = timings_of([self.sequence], 1)
        if self._wanted.n_predict == 0:
            told |= dict.fromkeys((key for key in told if key.startswith("predicted_")), 0)
        return told

    def whole(self, *, is_stream: bool) -> Json:
        """The answer once it is complete; at the end of a stream without what chunks have told."""
        sequence, text = self.sequence, "".join(self._texts)
        tokens = sequence.tokens if self._wanted.return_tokens and self._wanted.n_predict else []
        n_known = sequence.n_prompt + sequence.n_completion
        is_limit = self._rules.has_ended or sequence.finish is FinishReason.LENGTH
        word = None if is_limit else sequence.stopping_word
        answer: Json = {
            **self._head(is_end=True),
            "content": "" if is_stream else text,
            "tokens": [] if is_stream else tokens,
            "model": self._model.id,
            "generation_settings": self._settings,
            "prompt": self._model.tokenizer.decode(self._prompt),
            "has_new_line": "\n" in text,
            "truncated": is_limit and n_known >= self._model.max_seq_len,
            "stop_type": "limit" if is_limit else "word" if word else "eos",
            "stopping_word": word or "",
            "tokens_cached": n_known - min(1, sequence.n_completion),
            "timings": self.timings(),
            **self.probabilities(),
        }
        return picked(answer, self._wanted.response_fields)


def picked(answer: Json, names: Sequence[str]) -> Json:
    """The fields that were asked for, all where none were; "a/b" is b of a, under its own name.
    Names of nothing are passed over."""
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
