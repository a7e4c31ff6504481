"""How long a step takes whose rows are computed in groups, while the sums of others travel: the
schedule of dllama/runtime/divided.py with times in place of work. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dllama.runtime.divided import in_order

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
    now = wire_free = 0.0
    turns = [each / n_groups for each in half_layers] * n_layers
    n_computed = [0] * n_groups
    sums_at, rows_at = [0.0] * n_groups, [0.0] * n_groups  # when they have arrived
    waiting: list[int] = []  # groups that are computed and not entered

    def enter(n_left: int) -> None:
        nonlocal now, wire_free
        while len(waiting) > n_left:
            group = waiting.pop(0)
            now = max(now, sums_at[group])
            wire_free = max(now, wire_free) + hops.normed
            rows_at[group] = wire_free + hops.latency

    for group in in_order(n_groups, len(turns) + 1, has_parts=has_parts):
        if group in waiting:
            waiting.remove(group)
            waiting.insert(0, group)
            enter(len(waiting) - 1)
        now = max(now, rows_at[group])
        if (turn := n_computed[group]) == len(turns):
            continue  # all it has done now is to take in the last sums
        begun = BEGUN * turns[turn] if has_parts and turn % len(half_layers) else 0.0
        now += begun
        if begun:
            enter(0)
        now += turns[turn] - begun
        wire_free = max(now, wire_free) + hops.sums
        sums_at[group] = wire_free + hops.latency
        n_computed[group] += 1
        waiting.append(group)
        if not has_parts:
            enter(min(1, n_groups - 1))
    return now
