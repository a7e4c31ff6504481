"""How often guesses come true: for each kind an estimate that goes on learning from what came."""

from __future__ import annotations

from collections.abc import Iterable

FIRST_WEIGHT = 3  # tokens that what is thought at first weighs as much as
MAX_WEIGHT = 30  # and what was learned from any number of them: texts change


class HitRates:
    """Of one sequence; kinds are numbered from 0."""

    def __init__(self, first: Iterable[float]) -> None:
        """`first` is what is thought of each kind to begin with."""
        self._rates = list(first)
        self._weights = [FIRST_WEIGHT] * len(self._rates)

    def of(self, kind: int) -> float:
        """The chance that a guess of this kind is right."""
        return self._rates[kind]

    def learn(self, kind: int, is_right: bool) -> None:
        """A guess of this kind was right, or was not."""
        self._weights[kind] = min(self._weights[kind] + 1, MAX_WEIGHT)
        self._rates[kind] += (is_right - self._rates[kind]) / self._weights[kind]
