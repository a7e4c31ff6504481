"""DRY ("don't repeat yourself"): a token that would extend a repetition becomes less likely, the
more so the longer the repetition is.

Source: the DRY sampler of llama.cpp (src/llama-sampling.cpp). If the last `length` tokens, at least
dry_allowed_length of them, also occurred earlier in the last `dry_penalty_last_n` tokens, the token
that came next there loses dry_multiplier * dry_base ** (length - dry_allowed_length), for
the longest such length. Repetitions do not reach back over a breaker: a token of `dry_breakers`
or one of the token sequences `dry_phrases`. Tokens of `dry_breakers` themselves lose nothing.

The lengths of repetitions follow a new token in one pass over an array; those of a prompt come from
the Z algorithm (Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997, section 1.3),
backwards.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dllama.requests import SamplingParams


_MAX_PENALTY = 1e30  # leaves a float32 logit finite; no logit is as large
_ONE_BY_ONE = 16  # new tokens up to which appending each is cheaper than starting over
_MAX_LOG = math.log(3.4028234663852886e38)  # of the largest factor, as in llama.cpp


def has_dry(params: SamplingParams) -> bool:
    """Whether repetitions are penalised at all."""
    return params.dry_multiplier > 0.0 and params.dry_penalty_last_n != 0


class DryPenalties:
    """The LogitsProcessor for tokens that would extend a repetition."""

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
        """The penalty of each token that would extend a repetition."""
        allowed = self._params.dry_allowed_length
        if self._n_since_break < allowed:
            return {}
        lengths = np.minimum(self._repeats.lengths(), self._n_since_break)
        places = np.flatnonzero(lengths >= allowed)
        if not len(places):
            return {}
        longest: dict[int, int] = {}
        following = self._repeats.tokens[places + 1]
        order = np.argsort(lengths[places], kind="stable")  # the longest last
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


class Repeats:
    """The last `last_n` tokens of a growing list (-1: all), and earlier occurrences of its end."""

    def __init__(self, last_n: int) -> None:
        self.tokens = np.zeros(0, np.int64)  # (n,)
        self._lengths = np.zeros(0, np.int64)  # (n,): may count tokens before the window; last: 0
        self._last_n = last_n
        self._n_followed = 0

    def follow(self, tokens: list[int]) -> None:
        """Takes in the new end of `tokens`, which begins with all tokens of the last call."""
        new = tokens[self._n_followed :]
        self._n_followed = len(tokens)
        if len(new) > _ONE_BY_ONE:
            known = tokens if self._last_n < 0 else tokens[max(0, len(tokens) - self._last_n) :]
            self.tokens = np.array(known, np.int64)
            self._lengths = np.array(suffix_matches(known), np.int64)
            return
        for token in new:
            self._append(token)

    def _append(self, token: int) -> None:
        n = len(self.tokens)
        lengths = np.zeros(n + 1, np.int64)
        if n:
            lengths[1:n] = self._lengths[: n - 1]
            lengths[:n] += 1
            lengths[:n] *= self.tokens == token
        self.tokens = np.append(self.tokens, token)
        self._lengths = lengths
        if 0 <= self._last_n < n + 1:
            self.tokens = self.tokens[n + 1 - self._last_n :]
            self._lengths = lengths[n + 1 - self._last_n :]

    def lengths(self) -> np.ndarray:
        """(n - 1,): for each place but the last the number of tokens up to it that equal those at
        the end, within the window."""
        n = len(self.tokens)
        return np.minimum(self._lengths[: max(0, n - 1)], np.arange(1, max(1, n)))


def suffix_matches(tokens: list[int]) -> list[int]:
    """For every place the number of tokens up to it that equal those at the end of the list; 0 for
    the last place itself."""
    reversed_tokens = tokens[::-1]
    n = len(tokens)
    z = [0] * n
    left = right = 0  # reversed_tokens[left:right] equals the beginning of reversed_tokens
    for i in range(1, n):
        length = min(z[i - left], right - i) if i < right else 0
        while i + length < n and reversed_tokens[length] == reversed_tokens[i + length]:
            length += 1
        z[i] = length
        if i + length > right:
            left, right = i, i + length
    return z[::-1]
