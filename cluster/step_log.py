"""Where the time of the last steps went, for GET /stats. Cheap: one append a step.

Steps that only decode are kept apart from those that read prompts: a token of a prompt costs a
fraction of one that is generated, and figures of both together would tell of neither.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from cluster.mesh.collective import SyncTimes
from dllama.step import Step

RECENT_STEPS = 64


class StepTimes(NamedTuple):
    """One step, or a sum of them; times in nanoseconds."""

    n_tokens: int = 0
    elapsed_ns: int = 0
    compute_ns: int = 0
    wait_ns: int = 0
    network_ns: int = 0


class StepLog:
    """Remembers the last steps of a rank, of both kinds, and the sum of all."""

    def __init__(self) -> None:
        self.since_start = StepTimes()
        self._decode: deque[StepTimes] = deque(maxlen=RECENT_STEPS)
        self._prefill: deque[StepTimes] = deque(maxlen=RECENT_STEPS)

    def add(self, step: Step, elapsed_ns: int, before: SyncTimes, after: SyncTimes) -> None:
        """Notes a step. What it computed after its last collective counts as computing."""
        wait_ns = after.wait_ns - before.wait_ns
        network_ns = after.network_ns - before.network_ns
        compute_ns = max(0, elapsed_ns - wait_ns - network_ns)
        times = StepTimes(step.n_tokens, elapsed_ns, compute_ns, wait_ns, network_ns)
        (self._decode if step.is_decode else self._prefill).append(times)
        self.since_start = _sum([self.since_start, times])

    @property
    def n_decode(self) -> int:
        """Steps that `decode` sums up."""
        return len(self._decode)

    def decode(self) -> StepTimes:
        """Sums over the remembered steps that decoded and did nothing else."""
        return _sum(self._decode)

    def prefill(self) -> StepTimes:
        """Sums over the remembered steps that read prompts."""
        return _sum(self._prefill)


def _sum(times: Iterable[StepTimes]) -> StepTimes:
    return StepTimes(*(sum(column) for column in zip(StepTimes(), *times, strict=True)))
