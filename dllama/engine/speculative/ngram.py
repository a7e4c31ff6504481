"""Drafts from the sequence's own text: the tokens that followed an earlier occurrence of its end.

A chain leads from each pair of tokens to its occurrence before; of the latest occurrences the one
with the longest match is taken ("prompt lookup"). Acceptance rates are learned from every draft,
also from those that were not checked: the tokens that came are compared with it all the same.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from dllama.engine.speculative.draft import MAX_DRAFT, Draft, HitRates

SHORTEST = 2  # tokens of a match: a single one says too little
LONGEST = 8  # tokens compared at most
DEPTH = 12  # earlier places compared with the end
WINDOW = 8192  # tokens indexed at least; twice as many at most


class Place(NamedTuple):
    """An earlier occurrence of the last `length` tokens: tokens[end - length : end]."""

    end: int
    length: int


class NgramIndex:
    """An index of the token pairs of one growing list; one table entry a token."""

    def __init__(self) -> None:
        self._latest: dict[int, int] = {}  # pair -> position of its latest last token
        self._before = array("i")  # position of the pair's occurrence before; -1: none
        self._begin = 0  # position of the first indexed token

    def __len__(self) -> int:
        """Entries of the larger of its two tables."""
        return max(len(self._latest), len(self._before))

    def follow(self, tokens: list[int]) -> None:
        """Indexes the new end of `tokens`, which begins with all tokens indexed before."""
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
        """The longest match of the end of `tokens` (all indexed) among its last DEPTH earlier
        occurrences, the latest of several; None without any."""
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


class NgramDrafter:
    """Drafts for one sequence from its own text."""

    def __init__(
        self, *, max_tokens: int = MAX_DRAFT, min_tokens: int = 0, min_chance: float = 0.0
    ):
        """A draft has at most `max_tokens`, ends before a token whose acceptance rate is below
        `min_chance`, and is dropped if it has fewer than `min_tokens`."""
        self._max_tokens, self._min_tokens = max_tokens, min_tokens
        self._min_chance = min_chance
        self._index = NgramIndex()
        # One class for each length of the match, from SHORTEST on.
        self._rates = HitRates(1.0 - 1.5 / n for n in range(SHORTEST, LONGEST + 1))
        self._draft: list[int] = []  # the last draft,
        self._length = 0  # the length of its match,
        self._n_known = 0  # and the number of tokens it follows

    def draft(self, tokens: list[int], max_tokens: int) -> Draft:
        """At most `max_tokens` tokens that may follow `tokens`, which begin with those of the
        call before; a match that overlaps the end is continued periodically."""
        self._learn(tokens)
        self._index.follow(tokens)
        self._draft, self._n_known = [], len(tokens)
        place = self._index.find(tokens)
        if place is None:
            return Draft([], [])
        self._length = place.length
        n, n_there = min(self._max_tokens, max_tokens), len(tokens) - place.end
        draft = [tokens[place.end + i % n_there] for i in range(max(1, n))]
        self._draft = draft  # learned from, whether it is checked or not
        return self._likely(draft[: max(0, n)])

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or an empty one where it has fewer than `min_tokens`."""
        return draft if len(draft) >= self._min_tokens else []

    def leave(self) -> None:
        """Does nothing: there are no pages to give back."""

    def _likely(self, draft: list[int]) -> Draft:
        """The draft up to the first token that is too unlikely, with the chances of its tokens."""
        chances: list[float] = []
        chance = 1.0
        for i in range(len(draft)):
            rate = self._rates.of(self._class_of(i))
            if rate < self._min_chance:
                break
            chance *= rate
            chances.append(chance)
        return Draft(draft[: len(chances)], chances)

    def _learn(self, tokens: list[int]) -> None:
        """Compares the last draft with the tokens that came, up to the first difference."""
        came = tokens[self._n_known : self._n_known + len(self._draft)]
        for i, token in enumerate(came):
            is_right = token == self._draft[i]
            self._rates.learn(self._class_of(i), is_right)
            if not is_right:
                return

    def _class_of(self, i: int) -> int:
        """The class of token i of a draft: the match has grown by i tokens there."""
        return min(self._length + i, LONGEST) - SHORTEST
