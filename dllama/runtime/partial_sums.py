"""Buffers for sums that only some families make: of the parts of one addend, and of squares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dllama.models.family import Family
from kernels.arrays import aligned
from kernels.joint_norm import square_sums
from kernels.matmul.sums import FixedSums

N_PARTS = 2


class Parts(NamedTuple):
    """The parts of each row's addend, for up to T rows: part p of row t is the sum p T + t."""

    sums: FixedSums  # (N_PARTS T, width)
    slots: np.ndarray  # (T, N_PARTS) int32: the rows of a row's parts

    def part(self, number: int, rows: slice) -> FixedSums:
        """Returns one part of some of the rows."""
        first = number * len(self.slots)
        return self.sums.rows(slice(first + rows.start, first + rows.stop))


class Squares(NamedTuple):
    """The mean squares of each row's heads."""

    own: FixedSums  # (T, GROUP): this rank's part
    total: np.ndarray  # (T, GROUP) float32


def allocate_parts(family: Family, max_tokens: int, width: int) -> Parts | None:
    """Allocates the parts of a family that makes them; None for others."""
    if family.feed_forward is not None:
        return None
    slots = aligned((max_tokens, N_PARTS), np.int32)
    slots[:] = np.arange(N_PARTS) * max_tokens + np.arange(max_tokens)[:, None]
    return Parts(FixedSums.zeros(N_PARTS * max_tokens, width), slots)


def allocate_squares(family: Family, max_tokens: int) -> Squares | None:
    """Allocates the sums of a family that measures its heads; None for others."""
    if family.attention.measure is None:
        return None
    own = square_sums(max_tokens)
    return Squares(own, aligned(own.low.shape, np.float32))
