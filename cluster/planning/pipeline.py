"""How long a step takes whose rows are computed in groups, while the sums of others travel: the
schedule of dllama/runtime/turns.py with times in place of work. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dllama.runtime.turns import take_turns

MOST_LAYERS = 6  # that are looked at one by one; the others take as long as the last of these
BEGUN = 2 / 3  # of a feed-forward's products are computed in its first part


class Hops(NamedTuple):
    """What a group's rows take on the wire after a half layer, in seconds."""

    sums: float
    normed: float
    latency: float  # of each of both, in which others travel


def pipelined_s(
    half_layers: Sequence[float], n_layers: int, n_groups: int, hops: Hops, *, has_parts: bool
) -> float:
    """Returns the seconds of `n_layers` layers whose half layers compute for so long each, all
    groups together."""
    if n_layers <= MOST_LAYERS:
        return _simulated(half_layers, n_layers, n_groups, hops, has_parts)
    half = MOST_LAYERS // 2
    first, second = (
        _simulated(half_layers, n, n_groups, hops, has_parts) for n in (half, MOST_LAYERS)
    )
    return second + (n_layers - MOST_LAYERS) * (second - first) / (MOST_LAYERS - half)


def _simulated(
    half_layers: Sequence[float], n_layers: int, n_groups: int, hops: Hops, has_parts: bool
) -> float:
    clock, turns = _Clock(), [each / n_groups for each in half_layers] * n_layers
    begun = [BEGUN if has_parts and i % len(half_layers) else 0.0 for i in range(len(turns))]
    groups = [_Group(clock, hops, list(zip(turns, begun, strict=True))) for _ in range(n_groups)]
    take_turns(groups, len(turns), has_parts=has_parts)
    return clock.now


class _Clock:
    """What a rank has computed until, and its wire is at work until."""

    now = 0.0
    _wire_free = 0.0

    def wait_until(self, arrival: float) -> None:
        self.now = max(self.now, arrival)

    def send(self, taken: float) -> float:
        """Returns when something has left that takes so long."""
        self._wire_free = max(self.now, self._wire_free) + taken
        return self._wire_free


class _Group:
    """A group whose half layers take times: each, and which part of it comes first."""

    def __init__(self, clock: _Clock, hops: Hops, turns: Sequence[tuple[float, float]]) -> None:
        self._clock, self._hops, self._turns = clock, hops, iter(turns)
        self._sums_at = self._rows_at = 0.0  # when they have arrived

    def enter(self) -> None:
        self._clock.wait_until(self._sums_at)
        self._rows_at = self._clock.send(self._hops.normed) + self._hops.latency

    def compute(self, between: Callable[[], None]) -> bool:
        clock = self._clock
        clock.wait_until(self._rows_at)
        taken, begun = next(self._turns, (None, 0.0))
        if taken is None:
            return False  # all it has done now is to take in the last sums
        clock.now += begun * taken
        if begun:
            between()
        clock.now += (1 - begun) * taken
        self._sums_at = clock.send(self._hops.sums) + self._hops.latency
        return True
