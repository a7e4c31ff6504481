"""Times short runs of the same work: what disturbs a machine for a moment does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

WARM = 2  # first runs, which compile
ROUNDS = 5  # in which all runs take turns: a machine is disturbed for tenths of a second
MOST_S = 2.0  # after which no other round begins, on a slow machine


class Timed(NamedTuple):
    """Some work, and the seconds for which it is repeated in all rounds together."""

    run: Callable[[], object]
    budget_s: float


def lower_quartiles(works: Sequence[Timed]) -> list[float]:
    """Returns the lower quartile of the seconds of each work's runs: on a busy machine, too, it is
    a run that no other program has interrupted."""
    return [found[len(found) // 4] for found in _sorted_seconds(works)]


def medians(works: Sequence[Timed]) -> list[float]:
    """Returns the median of the seconds of each work's runs: what it takes mostly, on a machine as
    busy as it is."""
    return [found[len(found) // 2] for found in _sorted_seconds(works)]


def _sorted_seconds(works: Sequence[Timed]) -> list[list[float]]:
    """Returns the seconds of each work's runs. In a round each work runs once at least, and there
    is one round at least."""
    for work in works:
        for _ in range(WARM):
            work.run()
    times: list[list[float]] = [[] for _ in works]
    last = time.perf_counter() + MOST_S
    for number in range(ROUNDS):
        if number and time.perf_counter() > last:
            break
        for work, found in zip(works, times, strict=True):
            ended = time.perf_counter() + work.budget_s / ROUNDS
            while True:
                began = time.perf_counter()
                work.run()
                now = time.perf_counter()
                found.append(now - began)
                if now >= ended:
                    break
    return [sorted(found) for found in times]
