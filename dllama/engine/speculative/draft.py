"""A draft: tokens that may come next in a sequence, and the estimates of how likely they are.

Knows no model and no n-grams. Drafts change when tokens are computed, never which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

MAX_DRAFT = 15  # tokens of a draft: with the row before them two tiles of eight
PRIOR_WEIGHT = 3  # weight of the prior, in tokens
MAX_WEIGHT = 30  # weight of all that was learned, in tokens: texts change


class Draft(NamedTuple):
    """Proposed tokens, and for each the chance that it and all before it are accepted."""

    tokens: list[int]
    chances: list[float]  # falling


class Drafter(Protocol):
    """Proposes drafts for one sequence: an NgramDrafter, or a ModelDrafter with a draft model."""

    def draft(self, tokens: list[int], max_tokens: int) -> Draft:
        """At most `max_tokens` tokens that may follow `tokens`, which begin with those of the
        call before."""
        ...

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or an empty one where it is shorter than the request allows."""
        ...

    def leave(self) -> None:
        """Gives back pages: the sequence has ended or is pre-empted."""
        ...


class HitRates:
    """Acceptance rates of one sequence's drafted tokens, by class: running estimates."""

    def __init__(self, priors: Iterable[float]) -> None:
        """`priors` are the rates before anything is measured, one for each class."""
        self._rates = list(priors)
        self._weights = [PRIOR_WEIGHT] * len(self._rates)

    def of(self, kind: int) -> float:
        """The estimated chance that a drafted token of class `kind` is accepted."""
        return self._rates[kind]

    def learn(self, kind: int, is_right: bool) -> None:
        """Records whether a drafted token of class `kind` was the one that came."""
        self._weights[kind] = min(self._weights[kind] + 1, MAX_WEIGHT)
        self._rates[kind] += (is_right - self._rates[kind]) / self._weights[kind]
