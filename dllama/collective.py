"""The seam between ranks inside a forward pass. The model sees a Collective and never a rank."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kernels.matmul.sums import FixedSums
from kernels.program import Call

Addend = np.ndarray | FixedSums
"""A rank's part of a sum: float32 numbers, or exact ones."""


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

    def gather(self, part: bytes) -> list[bytes] | None:
        """On rank 0 every rank's part, in rank order; None elsewhere. Raises PeerLost."""
        ...


class SoloCollective:
    """The Collective of a single rank: adds nothing and waits for nothing."""

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        if isinstance(x, FixedSums):
            from kernels.wire.fixed import add_fixed

            add_fixed([x], out)
        elif out is not x:
            np.copyto(out, x)

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        return None

    def gather(self, part: bytes) -> list[bytes] | None:
        return [part]
