"""Where the time of the last steps went, for GET /stats. Cheap: one append a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from cluster.mesh import SyncTimes

RECENT_STEPS = 64


class StepTimes(NamedTuple):
    """One step, or a sum of them; times in nanoseconds."""

    n_tokens: int = 0
    elapsed_ns: int = 0
    compute_ns: int = 0
    wait_ns: int = 0
    network_ns: int = 0


class StepLog:
    """Remembers the last steps of a rank, and the sum of all."""

    def __init__(self) -> None:
        self.since_start = StepTimes()
        self._steps: deque[StepTimes] = deque(maxlen=RECENT_STEPS)

    def add(self, n_tokens: int, elapsed_ns: int, before: SyncTimes, after: SyncTimes) -> None:
        """Notes a step. What it computed after its last collective counts as computing."""
        wait_ns = after.wait_ns - before.wait_ns
        network_ns = after.network_ns - before.network_ns
        compute_ns = max(0, elapsed_ns - wait_ns - network_ns)
        times = StepTimes(n_tokens, elapsed_ns, compute_ns, wait_ns, network_ns)
        self._steps.append(times)
        self.since_start = _sum([self.since_start, times])

    def __len__(self) -> int:
        return len(self._steps)

    def total(self) -> StepTimes:
        """Sums over the remembered steps."""
        return _sum(self._steps)


def _sum(times: Iterable[StepTimes]) -> StepTimes:
    return StepTimes(*(sum(column) for column in zip(StepTimes(), *times, strict=True)))
