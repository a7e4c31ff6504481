"""What a step takes by the number of its rows, as far as steps that only continue answers tell.

Is told what steps took, never asks a clock. Of several measurements the least counts: whatever
disturbs a step makes it longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MEMORY = 5  # measurements of steps of one size
BASES = 2  # measurements of what all others are compared with: one alone may be disturbed
LASTING = 64  # steps for which each of them is believed
SHORTEST_S = 0.002  # of a row: in shorter steps guessing takes as long as it could save
EXTRA_ROW = 0.2  # what one more row is thought to take of an average one, before it is measured


@dataclass(slots=True)
class _Size:
    """Steps of one number of rows."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    n_seen: int = 0  # steps of all sizes up to the last of these

    def is_known(self, now: int) -> bool:
        return now - self.n_seen <= LASTING * len(self.seconds)


class StepCosts:
    """Running estimates for every number of rows."""

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._n_steps = 0

    def note(self, n_rows: int, seconds: float) -> None:
        """A step has taken so long."""
        self._n_steps += 1
        size = self._sizes.setdefault(n_rows, _Size())
        if not size.is_known(self._n_steps):
            size.seconds.clear()  # what it took long ago tells little of now
        size.seconds.append(seconds)
        size.n_seen = self._n_steps

    def seconds(self, n_rows: int) -> float | None:
        """What a step of so many rows takes; None where too little is known of it."""
        base = self._sizes.get(n_rows)
        if base is None or len(base.seconds) < BASES or not base.is_known(self._n_steps):
            return None
        return min(base.seconds)

    def curve(self, n_rows: int, n_more: int) -> list[float] | None:
        """What 0 to n_more rows beside n_rows add, in parts of a step of n_rows; never falling,
        and no longer than about twice what was measured, so that each try risks little.
        None where too little is known of a step of n_rows, or it is too short to be worth it."""
        now, sizes = self._n_steps, self._sizes
        base_s = self.seconds(n_rows)
        if base_s is None or base_s < SHORTEST_S * n_rows:
            return None
        known = [
            (n - n_rows, min(sizes[n].seconds) / base_s - 1.0)
            for n in sorted(sizes)
            if n_rows < n and sizes[n].is_known(now)
        ]
        return _joined(known, EXTRA_ROW / n_rows, n_more)


def _joined(known: list[tuple[int, float]], slope: float, n_more: int) -> list[float]:
    """Straight lines from (0, 0) through the known points, and with the last one's slope, at least
    `slope`, behind them; never falling."""
    added = [0.0]
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
