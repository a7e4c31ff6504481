"""The seam between ranks inside a forward pass. The model sees a Collective and never a rank."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kernels.matmul.sums import FixedSums
from kernels.program import Call

Addend = np.ndarray | FixedSums
"""A rank's part of a sum: float32 numbers, or exact ones."""


class PendingSum(Protocol):
    """A sum over all ranks that is under way."""

    def advance(self) -> None:
        """Does what others wait for, if their addends are due by now. Raises PeerLost."""
        ...

    def finish(self) -> None:
        """Waits until the sum is there. Raises PeerLost."""
        ...


class Collective(Protocol):
    """Its operations. Every rank calls them in the same order with the same shapes."""

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        """Writes the sum of every rank's x (T, dim) to `out` float32, which may be x itself. All
        ranks hold the same bits: float32 numbers are added in rank order, fixed-point numbers
        exactly. Raises PeerLost."""
        ...

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        """Returns a call for a program that does what `all_reduce` does with these arrays; where
        its result is not 0, `all_reduce` has to finish it. None where there is no such call."""
        ...

    def begin_all_reduce(self, x: Addend, out: np.ndarray) -> PendingSum:
        """Begins what `all_reduce` does, so that this rank can compute until it needs the sum.
        `out` is to stay as it is until then; x is free at once. Raises PeerLost."""
        ...

    def n_groups(self, n_rows: int) -> int:
        """Returns the number of groups that a step's rows are best computed in, so that the sums of
        one travel while another is computed; 1 where that brings nothing."""
        ...

    def gather(self, part: bytes) -> list[bytes] | None:
        """On rank 0 every rank's part, in rank order; None elsewhere. Raises PeerLost."""
        ...


class Finished:
    """The PendingSum of a sum that is there already."""

    def advance(self) -> None: ...

    def finish(self) -> None: ...


class ImmediateSums:
    """What a Collective is that knows sums at once only."""

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        raise NotImplementedError

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        return None

    def begin_all_reduce(self, x: Addend, out: np.ndarray) -> PendingSum:
        self.all_reduce(x, out)
        return Finished()

    def n_groups(self, n_rows: int) -> int:
        return 1


class SoloCollective(ImmediateSums):
    """The Collective of a single rank: adds nothing and waits for nothing."""

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        if isinstance(x, FixedSums):
            from kernels.wire.fixed import add_fixed

            add_fixed([x], out)
        elif out is not x:
            np.copyto(out, x)

    def gather(self, part: bytes) -> list[bytes] | None:
        return [part]
