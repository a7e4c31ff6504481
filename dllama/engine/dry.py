"""DRY ("don't repeat yourself"): a token that would go on with a repetition becomes less likely,
the more so the longer the repetition is.

Source: the DRY sampler of llama.cpp (src/llama-sampling.cpp). If the tokens at the end stood in
the last `dry_penalty_last_n` tokens before, and `length` >= dry_allowed_length of them did, the
token that came next there loses dry_multiplier * dry_base ** (length - dry_allowed_length), for
the longest such length. Repetitions do not reach back over a breaker: a token of `dry_breakers`
or one of the token sequences `dry_phrases`. Tokens of `dry_breakers` themselves lose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from dllama.engine.repeats import Repeats
from dllama.requests import SamplingParams

_MAX_PENALTY = 1e30  # leaves a float32 logit finite; no logit is as large
_MAX_LOG = math.log(3.4028234663852886e38)  # of the largest factor, as in llama.cpp


def has_dry(params: SamplingParams) -> bool:
    """Whether repetitions are made less likely at all."""
    return params.dry_multiplier > 0.0 and params.dry_penalty_last_n != 0


class DryPenalties:
    """The Edit for tokens that would go on with a repetition."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._repeats = Repeats(params.dry_penalty_last_n)
        self._breakers = frozenset(params.dry_breakers)
        self._phrases: dict[int, list[list[int]]] = {}  # by their last token
        for phrase in params.dry_phrases:
            self._phrases.setdefault(phrase[-1], []).append(phrase)
        self._n_followed = 0
        self._n_since_break = 0  # tokens after the last breaker, or all
        self._penalties: dict[int, float] = {}

    def follow(self, tokens: list[int]) -> None:
        if len(tokens) == self._n_followed:
            return
        for end in range(len(tokens), self._n_followed, -1):
            if self._ends_breaker(tokens, end):
                self._n_since_break = len(tokens) - end
                break
        else:
            self._n_since_break += len(tokens) - self._n_followed
        self._n_followed = len(tokens)
        self._repeats.follow(tokens)
        self._penalties = self._of_next_tokens()

    def touched(self) -> Collection[int]:
        return self._penalties.keys()

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        x -= np.array([self._penalties.get(token, 0.0) for token in ids])
        return x

    def max_lowered(self) -> int | None:
        last_n = self._params.dry_penalty_last_n
        return last_n if last_n >= 0 else None

    def _ends_breaker(self, tokens: list[int], end: int) -> bool:
        """Whether a breaker ends with tokens[end - 1]."""
        last = tokens[end - 1]
        if last in self._breakers:
            return True
        phrases = self._phrases.get(last, ())
        return any(tokens[max(0, end - len(phrase)) : end] == phrase for phrase in phrases)

    def _of_next_tokens(self) -> dict[int, float]:
        """What each token loses that would go on with a repetition."""
        allowed = self._params.dry_allowed_length
        if self._n_since_break < allowed:
            return {}
        lengths = np.minimum(self._repeats.lengths(), self._n_since_break)
        places = np.flatnonzero(lengths >= allowed)
        if not len(places):
            return {}
        longest: dict[int, int] = {}
        following = self._repeats.tokens[places + 1]
        order = np.argsort(lengths[places], kind="stable")  # so that the longest comes last
        for token, length in zip(
            following[order].tolist(), lengths[places][order].tolist(), strict=True
        ):
            longest[token] = length
        return {
            token: self._penalty(length - allowed)
            for token, length in longest.items()
            if token not in self._breakers
        }

    def _penalty(self, excess: int) -> float:
        log_base = math.log(self._params.dry_base)
        factor = math.exp(min(excess * log_base, _MAX_LOG))
        return min(self._params.dry_multiplier * factor, _MAX_PENALTY)
