"""A Collective over threads of one process: several ranks without a socket."""

from __future__ import annotations

import threading

import numpy as np

from cluster.mesh.sync_type import floats_of
from dllama.collective import Addend, ImmediateSums
from dllama.errors import PeerLost
from kernels.matmul.sums import FixedSums
from kernels.wire.fixed import add_fixed


class ThreadGroup:
    """The state that the ranks of one in-process cluster share."""

    def __init__(self, world_size: int, timeout_s: float = 60.0) -> None:
        self.world_size = world_size
        self.partials: list[Addend] = [np.empty((0, 0), np.float32)] * world_size
        self.parts: list[bytes] = [b""] * world_size
        self._barrier = threading.Barrier(world_size, timeout=timeout_s)

    def meet(self, rank: int) -> None:
        """Waits for all ranks. Raises PeerLost where one does not come."""
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise PeerLost(
                "another rank of this process stopped, or did not reach the same collective in "
                "time; look for its error above",
                rank=rank,
                host="this process",
            ) from None

    def leave(self) -> None:
        """Breaks the barrier: a rank that fails calls this, so that the others do not wait."""
        self._barrier.abort()


class ThreadCollective(ImmediateSums):
    """One rank's view of a ThreadGroup; a Collective."""

    def __init__(self, group: ThreadGroup, rank: int) -> None:
        self._group = group
        self._rank = rank

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        self._group.partials[self._rank] = x
        self._group.meet(self._rank)
        total = np.empty(out.shape, np.float32)
        exact = [part for part in self._group.partials if isinstance(part, FixedSums)]
        if exact:
            add_fixed(exact, total)
        else:
            total[:] = sum(floats_of(part) for part in self._group.partials)
        self._group.meet(self._rank)  # no rank may change its x before all have added it
        np.copyto(out, total)

    def gather(self, part: bytes) -> list[bytes] | None:
        self._group.parts[self._rank] = part
        self._group.meet(self._rank)
        parts = list(self._group.parts) if self._rank == 0 else None
        self._group.meet(self._rank)
        return parts
