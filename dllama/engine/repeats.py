"""How long the end of a sequence has been there before: for every earlier place, how many tokens
up to it are the same as those at the end. Knows no logits.

Lengths follow a new token in one pass over the array; a prompt is taken in by the Z algorithm
(Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997, section 1.3), backwards.
"""

from __future__ import annotations

import numpy as np

_ONE_BY_ONE = 16  # so many new tokens cost less than the lengths of all tokens anew


class Repeats:
    """The last `last_n` tokens of a growing list (-1: all), and where their end was before."""

    def __init__(self, last_n: int) -> None:
        self.tokens = np.zeros(0, np.int64)  # (n,)
        self._lengths = np.zeros(0, np.int64)  # (n,): may count tokens before the window; last: 0
        self._last_n = last_n
        self._n_followed = 0

    def follow(self, tokens: list[int]) -> None:
        """Catches up with `tokens`, which begins with all that was followed before."""
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
        """(n - 1,): how many of the tokens up to each but the last are those at the end; only
        tokens of the window count."""
        n = len(self.tokens)
        return np.minimum(self._lengths[: max(0, n - 1)], np.arange(1, max(1, n)))


def suffix_matches(tokens: list[int]) -> list[int]:
    """For every place, the number of tokens up to it that equal those at the end of the list; 0
    for the last place itself."""
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
