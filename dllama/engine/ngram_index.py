"""Where the end of a sequence stood before: the tokens that came next there are a good guess for
what comes next now. Knows token ids only.

A chain leads from each pair of tokens to the place where it stood before; of the latest places the
one that has most of the tokens before the pair in common is taken.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

SHORTEST = 2  # tokens that have to be the same: a single one says too little
LONGEST = 8  # no more are compared
DEPTH = 12  # places that are looked at
WINDOW = 8192  # tokens that are remembered at least, and twice as many at most


class Place(NamedTuple):
    """Where the last `length` tokens have been before: up to, and without, tokens[end]."""

    end: int
    length: int


class NgramIndex:
    """The pairs of one growing list of tokens. A token costs one entry of a table."""

    def __init__(self) -> None:
        self._latest: dict[int, int] = {}  # pair -> where its last token stood latest
        self._before = array("i")  # the same for the pair that ends at each token; -1: nowhere
        self._begin = 0  # the first token that is remembered

    def __len__(self) -> int:
        """Entries of the larger of its two tables."""
        return max(len(self._latest), len(self._before))

    def follow(self, tokens: list[int]) -> None:
        """Catches up with `tokens`, which begins with all that was followed before."""
        if len(tokens) - self._begin > 2 * WINDOW:
            self._latest.clear()
            del self._before[:]
            self._begin = len(tokens) - WINDOW
        latest, before, first = self._latest, self._before, self._begin
        if not before and len(tokens) > first:
            before.append(-1)
        for last in range(first + len(before), len(tokens)):
            pair = tokens[last - 1] << 32 | tokens[last]
            before.append(latest.get(pair, -1))
            latest[pair] = last

    def find(self, tokens: list[int]) -> Place | None:
        """The best of the last DEPTH places where the end of `tokens`, which were followed, stood
        before: the one with the most tokens in common, the latest of several."""
        if len(self._before) <= SHORTEST:
            return None
        before, first, end = self._before, self._begin, len(tokens) - 1
        best, best_length = -1, 0
        place = before[-1]
        for _ in range(DEPTH):
            if place < 0:
                break
            length = SHORTEST
            while (
                length < LONGEST
                and place - length >= first
                and tokens[place - length] == tokens[end - length]
            ):
                length += 1
            if length > best_length:
                best, best_length = place, length
                if length == LONGEST:
                    break
            place = before[place - first]
        return None if best < 0 else Place(best + 1, best_length)
