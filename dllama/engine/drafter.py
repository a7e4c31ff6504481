"""Guesses how one sequence goes on, from what stood in it before, and learns from how it did go on
how likely such guesses are to come true. Guesses change when tokens are computed, never which.

Nothing has to be computed to learn: a guess that nobody acted on is compared with the next tokens
all the same.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dllama.engine.hit_rates import HitRates
from dllama.engine.ngram_index import LONGEST, SHORTEST, NgramIndex

MAX_DRAFT = 15  # tokens of a guess: with the row before them two tiles of eight


class Draft(NamedTuple):
    """Tokens that may come next, and how likely it is that they do up to each of them."""

    tokens: list[int]
    chances: list[float]  # falling


class Guesser(Protocol):
    """What guesses for one sequence: a Drafter, or a ModelDrafter with a second model."""

    def guess(self, tokens: list[int], room: int) -> Draft:
        """At most `room` tokens that may follow `tokens`, which begin with those of the call
        before."""
        ...

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or none where it has become too short."""
        ...

    def leave(self) -> None:
        """The sequence does not run any more, or not for now: gives back what others may need."""
        ...


class Drafter:
    """The guesses for one sequence, from its own text."""

    def __init__(
        self, *, max_tokens: int = MAX_DRAFT, min_tokens: int = 0, min_chance: float = 0.0
    ):
        """A guess has at most `max_tokens`, stops before a token less likely than `min_chance`
        after the one before it, and is none with fewer than `min_tokens`."""
        self._max_tokens, self._min_tokens = max_tokens, min_tokens
        self._min_chance = min_chance
        self._index = NgramIndex()
        # By how many tokens a place has in common with the end, from SHORTEST on.
        self._rates = HitRates(1.0 - 1.5 / n for n in range(SHORTEST, LONGEST + 1))
        self._guess: list[int] = []  # what was guessed last,
        self._length = 0  # from a place with so many tokens in common,
        self._n_known = 0  # behind so many tokens

    def guess(self, tokens: list[int], room: int) -> Draft:
        """At most `room` tokens that may follow `tokens`, which begin with those of the call
        before; a period that has begun is gone on with."""
        self._learn(tokens)
        self._index.follow(tokens)
        self._guess, self._n_known = [], len(tokens)
        place = self._index.find(tokens)
        if place is None:
            return Draft([], [])
        self._length = place.length
        n, n_there = min(self._max_tokens, room), len(tokens) - place.end
        guess = [tokens[place.end + i % n_there] for i in range(max(1, n))]
        self._guess = guess  # told or not, it can be learned from
        return self._likely(guess[: max(0, n)])

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or none where it has become too short."""
        return draft if len(draft) >= self._min_tokens else []

    def leave(self) -> None:
        """Has nothing that others need."""

    def _likely(self, guess: list[int]) -> Draft:
        chances: list[float] = []
        chance = 1.0
        for i in range(len(guess)):
            rate = self._rates.of(self._class_of(i))
            if rate < self._min_chance:
                break
            chance *= rate
            chances.append(chance)
        return Draft(guess[: len(chances)], chances)

    def _learn(self, tokens: list[int]) -> None:
        """Compares the last guess with what came, up to the first difference."""
        came = tokens[self._n_known : self._n_known + len(self._guess)]
        for i, token in enumerate(came):
            is_right = token == self._guess[i]
            self._rates.learn(self._class_of(i), is_right)
            if not is_right:
                return

    def _class_of(self, i: int) -> int:
        """Which rate tells of token i of a guess: by then the place has i more in common."""
        return min(self._length + i, LONGEST) - SHORTEST
