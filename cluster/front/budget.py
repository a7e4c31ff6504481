"""A budget that fills again with time (a token bucket). The clock is an argument."""

from __future__ import annotations


class Budget:
    """`burst` units at once, and `per_s` more each second."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._units, self._at = burst, now

    def left(self, now: float) -> int:
        """Returns how many units may be spent now."""
        self._fill(now)
        return int(self._units)

    def spend(self, n_units: int, now: float) -> None:
        self._fill(now)
        self._units -= n_units

    def ready_at(self, now: float) -> float:
        """Returns when there is a unit to spend."""
        self._fill(now)
        return now + max(0.0, 1.0 - self._units) / self._per_s

    def _fill(self, now: float) -> None:
        self._units = min(self._burst, self._units + self._per_s * max(0.0, now - self._at))
        self._at = now
