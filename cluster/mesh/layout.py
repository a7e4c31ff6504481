"""How payloads are cut into messages, and who adds up which of them. The same on every rank, since
it depends on shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.mesh.links import HEADER_BYTES
from dllama.collective import RowShares
from kernels.addresses import address_of

BLOCK_BYTES = 1 << 20  # the longest message: heartbeats pass between messages, on slow links too
SCATTER_BYTES = 256 << 10  # payloads from here on are bound by bandwidth, not by latency
TWO_GROUPS_FROM, THREE_GROUPS_FROM = 256 << 10, 768 << 10  # bytes of a step's sums
KEPT = 16  # layouts: those of a step's groups of rows, and of the steps before

Place = tuple[str, int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that travel in one message to `receivers`: those of them that `owner` adds up or has
    (None: every rank adds them up).

    Its buffers are made once for all payloads of a place: ZeroMQ copies what it is given.
    """

    number: int
    rows: slice
    owner: int | None
    receivers: list[int]  # of this rank's message
    message: bytearray  # header and wire
    wire: np.ndarray  # what this rank sends, uint8 over `message`, less what rarely follows


def is_scattered(world_size: int, n_rows: int, wire_bytes: int, sum_bytes: int) -> bool:
    """Returns whether reduce-scatter and all-gather beat sending all to all, for rows of so many
    bytes as addends and as sums.

    Each rank sends N - 1 payloads plainly; scattered, it sends N - 1 Nth parts of partials in the
    wire type and as many of sums in float32. The second hop must be worth a quarter.
    """
    scattered = (wire_bytes + sum_bytes) / world_size
    is_large = n_rows >= world_size and n_rows * wire_bytes >= SCATTER_BYTES
    return is_large and scattered <= 0.75 * wire_bytes


def n_groups(n_rows: int, dim: int, least_rows: int, world_size: int) -> int:
    """Returns the groups that a long step's rows of `dim` values are computed in, each of at least
    `least_rows`; 0 for a step that is not long.

    With three, one is computed while the sums of another and the normed rows of the third travel.
    All ranks have to come to the same number, so nothing counts here that one of them alone knows,
    such as with whom it shares memory.
    """
    n_bytes = 4 * n_rows * dim
    if world_size == 1 or n_bytes < TWO_GROUPS_FROM or n_rows < 2 * least_rows:
        return 0
    return 2 if n_bytes < THREE_GROUPS_FROM or n_rows < 3 * least_rows else 3


class Layouts:
    """The layouts of one rank's payloads, by where the results go: collectives that are under way
    at the same time have buffers of their own."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        self._others = [r for r in range(world_size) if r != rank]
        self._kept: dict[Place, list[Block]] = {}

    def is_scattered(self, total: np.ndarray, wire_bytes: int) -> bool:
        """Returns whether a sum (T, cols) is best scattered; a row of an addend has
        `wire_bytes`."""
        return is_scattered(self._world_size, len(total), wire_bytes, 4 * total.shape[1])

    def to_all(self, total: np.ndarray, wire_bytes: int) -> list[Block]:
        """Returns the blocks of a sum (T, cols) of which every rank adds up all; a row of an addend
        has `wire_bytes`."""
        n_rows = len(total)
        return self._of(
            "to all", total, (n_rows,),
            lambda: self._cut([(None, range(n_rows), self._others)], total, wire_bytes),
        )  # fmt: skip

    def scattered(self, total: np.ndarray, wire_bytes: int, shares: RowShares) -> list[Block]:
        """Returns the blocks of a sum (T, cols) whose shares one rank each adds up."""
        parts = [
            (r, rows, [r] if r != self._rank else []) for r, rows in enumerate(_ranges(shares))
        ]
        return self._of(
            "scattered", total, shares.edges, lambda: self._cut(parts, total, wire_bytes)
        )

    def gathered(self, rows: np.ndarray, shares: RowShares) -> list[Block]:
        """Returns the blocks of rows (T, n) float32 whose shares one rank each sends to all."""
        parts = [
            (r, of_rank, self._others if r == self._rank else [])
            for r, of_rank in enumerate(_ranges(shares))
        ]
        return self._of(
            "gathered", rows, shares.edges, lambda: self._cut(parts, rows, 4 * rows.shape[1])
        )

    def _of(
        self, use: str, rows: np.ndarray, edges: tuple[int, ...], cut: Callable[[], list[Block]]
    ) -> list[Block]:
        place = use, address_of(rows), rows.shape, edges
        blocks = self._kept.get(place)
        if blocks is None:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            blocks = self._kept[place] = cut()
        return blocks

    def _cut(
        self,
        parts: Sequence[tuple[int | None, range, list[int]]],
        whole: np.ndarray,
        wire_bytes: int,
    ) -> list[Block]:
        rows_per_block = max(1, BLOCK_BYTES // (4 * whole.shape[1]))
        blocks: list[Block] = []
        for owner, rows, receivers in parts:
            for first in range(rows.start, rows.stop, rows_per_block):
                part = slice(first, min(rows.stop, first + rows_per_block))
                n_bytes = (part.stop - first) * wire_bytes
                message = bytearray(HEADER_BYTES + n_bytes)
                wire = np.frombuffer(message, np.uint8, n_bytes, HEADER_BYTES)
                blocks.append(Block(len(blocks), part, owner, receivers, message, wire))
        return blocks


def _ranges(shares: RowShares) -> list[range]:
    return [range(a, b) for a, b in zip(shares.edges, shares.edges[1:], strict=False)]
