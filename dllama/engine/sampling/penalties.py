"""The penalties for recent tokens.

Source: the penalties of llama.cpp (src/llama-sampling.cpp): for a token seen `count` times in the
last `repeat_last_n` tokens of prompt and answer, a logit above 0 is divided by repeat_penalty and
any other multiplied by it; then count * frequency_penalty + presence_penalty is taken off.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dllama.requests import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    """Whether recent tokens are penalised (or favoured) at all."""
    return params.repeat_last_n != 0 and (
        params.repeat_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


class TokenCounts:
    """The counts of each token among the last `last_n` of a growing list (-1: all of it)."""

    def __init__(self, last_n: int) -> None:
        self.last_n = last_n
        self.counts: dict[int, int] = {}
        self._begin = 0  # tokens[_begin:_end] are what `counts` counts
        self._end = 0

    def follow(self, tokens: list[int]) -> None:
        """Takes in the new end of `tokens`, which begins with all tokens of the last call."""
        end = len(tokens)
        begin = 0 if self.last_n < 0 else max(0, end - self.last_n)
        counts = self.counts
        for token in tokens[self._begin : min(begin, self._end)]:
            if counts[token] == 1:
                del counts[token]
            else:
                counts[token] -= 1
        for token in tokens[max(begin, self._end) : end]:
            counts[token] = counts.get(token, 0) + 1
        self._begin, self._end = begin, end


class Penalties:
    """The LogitsProcessor for tokens among the last `repeat_last_n`."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._seen = TokenCounts(params.repeat_last_n)

    def follow(self, tokens: list[int]) -> None:
        self._seen.follow(tokens)

    def touched(self) -> Collection[int]:
        return self._seen.counts.keys()

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        params, seen = self._params, self._seen.counts
        counts = np.array([seen.get(token, 0) for token in ids], np.float64)
        repeated = np.where(x > 0.0, x / params.repeat_penalty, x * params.repeat_penalty)
        repeated -= counts * params.frequency_penalty + params.presence_penalty
        return np.where(counts > 0.0, repeated, x)

    def max_lowered(self) -> int | None:
        params = self._params
        lowers_only = (
            params.repeat_penalty >= 1.0
            and params.presence_penalty >= 0.0
            and params.frequency_penalty >= 0.0
        )
        return params.repeat_last_n if lowers_only and params.repeat_last_n >= 0 else None
