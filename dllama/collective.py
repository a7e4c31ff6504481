"""The seam between ranks inside a forward pass. The model sees a Collective and never a rank."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from kernels.matmul.sums import FixedSums
from kernels.program import Call

Addend = np.ndarray | FixedSums
"""A rank's part of a sum: float32 numbers, or exact ones."""


class RowShares(NamedTuple):
    """Rows divided among ranks: those of rank r are edges[r] up to edges[r + 1]."""

    edges: tuple[int, ...]
    own: slice  # this rank's

    @classmethod
    def whole(cls, n_rows: int) -> RowShares:
        """Returns all rows as those of a single rank."""
        return cls((0, n_rows), slice(0, n_rows))

    @classmethod
    def even(cls, n_rows: int, rank: int, world_size: int) -> RowShares:
        """Returns shares of about one size."""
        edges = tuple(n_rows * r // world_size for r in range(world_size + 1))
        return cls(edges, slice(edges[rank], edges[rank + 1]))

    def of(self, wanted: np.ndarray) -> RowShares:
        """Returns the shares of some of the rows, given in rising order."""
        edges = tuple(np.searchsorted(wanted, self.edges).tolist())
        begin, end = np.searchsorted(wanted, (self.own.start, self.own.stop)).tolist()
        return RowShares(edges, slice(begin, end))


class Pending(Protocol):
    """A collective that is under way."""

    def finish(self) -> None:
        """Waits until the results are there. Raises PeerLost."""
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

    def shares(self, n_rows: int) -> RowShares:
        """Returns how the rows of a group are best divided among the ranks."""
        ...

    def begin_reduce_scatter(self, x: Addend, out: np.ndarray, shares: RowShares) -> Pending:
        """Begins to write this rank's share of the rows of what `all_reduce` writes, so that it can
        compute until it needs them. `out` and x are to stay as they are until then: what a rank
        keeps of exact sums is not copied. Raises PeerLost."""
        ...

    def begin_all_gather(self, rows: np.ndarray, shares: RowShares) -> Pending:
        """Begins to fill in the shares of other ranks in rows (T, n) float32, of which this rank's
        are there. Raises PeerLost."""
        ...

    def n_groups(self, n_rows: int, dim: int, least_rows: int) -> int:
        """Returns the number of groups, of `least_rows` or more, that the rows of a long step, of
        `dim` values each, are best computed in, so that
        those of one travel while another is computed; 0 for a step whose rows are few: all ranks
        then compute all that concerns single rows."""
        ...

    def gather(self, part: bytes) -> list[bytes] | None:
        """On rank 0 every rank's part, in rank order; None elsewhere. Raises PeerLost."""
        ...


class ImmediateSums:
    """What a Collective is that knows whole sums at once only."""

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        raise NotImplementedError

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        return None

    def n_groups(self, n_rows: int, dim: int, least_rows: int) -> int:
        return 0

    def shares(self, n_rows: int) -> RowShares:
        return RowShares.whole(n_rows)

    def begin_reduce_scatter(self, x: Addend, out: np.ndarray, shares: RowShares) -> Pending:
        raise NotImplementedError

    def begin_all_gather(self, rows: np.ndarray, shares: RowShares) -> Pending:
        raise NotImplementedError


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
