"""The duration of a step as a function of its number of rows, measured on decode steps.

Is told durations, never asks a clock. Of several measurements the least counts: disturbances only
make a step longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MEMORY = 5  # measurements kept for each number of rows
BASES = 2  # measurements needed of the plain step: a single one may be disturbed
LASTING = 64  # steps for which each measurement stays valid
SHORTEST_S = 0.002  # per row: in shorter steps drafting costs as much as it could save
EXTRA_ROW = 0.2  # prior of an extra row's cost, as a fraction of an average row
LEAST_ROW = 0.05  # the same once other sizes have been measured: the least that is believed of more


@dataclass(slots=True)
class _Size:
    """Measurements of steps with one number of rows."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    n_seen: int = 0  # number of the latest measured step

    def is_known(self, now: int) -> bool:
        return now - self.n_seen <= LASTING * len(self.seconds)


class StepCosts:
    """Running estimates for every number of rows."""

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._n_steps = 0

    def note(self, n_rows: int, seconds: float) -> None:
        """Records the duration of a step of `n_rows` rows."""
        self._n_steps += 1
        size = self._sizes.setdefault(n_rows, _Size())
        if not size.is_known(self._n_steps):
            size.seconds.clear()  # outdated
        size.seconds.append(seconds)
        size.n_seen = self._n_steps

    def seconds(self, n_rows: int) -> float | None:
        """The duration of a step of `n_rows` rows; None before it is known well enough."""
        base = self._sizes.get(n_rows)
        if base is None or len(base.seconds) < BASES or not base.is_known(self._n_steps):
            return None
        return min(base.seconds)

    def curve(self, n_rows: int, n_more: int) -> list[float] | None:
        """Relative cost of 0..n_more extra rows, as fractions of a plain step of `n_rows`; never
        falling. Ends at about twice the largest measured size, so that each trial risks little.
        None where a plain step is not known well enough, or is too short for drafting to pay."""
        now, sizes = self._n_steps, self._sizes
        base_s = self.seconds(n_rows)
        if base_s is None or base_s < SHORTEST_S * n_rows:
            return None
        known = [
            (n - n_rows, min(sizes[n].seconds) / base_s - 1.0)
            for n in sorted(sizes)
            if n_rows < n and sizes[n].is_known(now)
        ]
        least = LEAST_ROW if known else EXTRA_ROW
        return _joined(known, least / n_rows, n_more)


def _joined(known: list[tuple[int, float]], least: float, n_more: int) -> list[float]:
    """Linear interpolation from (0, 0) through the known points, made non-decreasing, and beyond
    them extrapolation by their steepest slope from there, `least` at least."""
    added, slope = [0.0], least
    at, here = 0, 0.0
    for n, there in known:
        there = max(there, here)
        added += [here + (there - here) * i / (n - at) for i in range(1, n - at)]
        added.append(there)
        at, here = n, there
        slope = max(slope, here / at)
        if at >= n_more:
            break
    added += [here + slope * i for i in range(1, at + 2)]
    return added[: n_more + 1]
