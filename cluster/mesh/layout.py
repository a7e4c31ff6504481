"""How payloads are cut into messages, and who adds up which of them. The same on every rank, since
it depends on shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.mesh.links import HEADER_BYTES

BLOCK_BYTES = 1 << 20  # the longest message: heartbeats pass between messages, on slow links too
SCATTER_BYTES = 256 << 10  # payloads from here on are bound by bandwidth, not by latency
KEPT = 16  # layouts: those of a step's groups of rows, and of the steps before

Place = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that travel in one message; `owner` adds them up for all (None: every rank does).

    Its buffers are made once for all payloads of a place: ZeroMQ copies what it is given.
    """

    number: int
    rows: slice
    owner: int | None
    receivers: list[int]  # who adds up what this rank computed of it
    message: bytearray  # header and wire
    wire: np.ndarray  # this rank's addend, uint8 over `message`, less what rarely follows


def is_scattered(world_size: int, n_rows: int, wire_bytes: int, sum_bytes: int) -> bool:
    """Returns whether reduce-scatter and all-gather beat sending all to all, for rows of so many
    bytes as addends and as sums.

    Each rank sends N - 1 payloads plainly; scattered, it sends N - 1 Nth parts of partials in the
    wire type and as many of sums in float32. The second hop must be worth a quarter.
    """
    scattered = (wire_bytes + sum_bytes) / world_size
    is_large = n_rows >= world_size and n_rows * wire_bytes >= SCATTER_BYTES
    return is_large and scattered <= 0.75 * wire_bytes


class Layouts:
    """The layouts of one rank's payloads, by where their sums go: sums that are under way at the
    same time have buffers of their own."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        self._others = [r for r in range(world_size) if r != rank]
        self._kept: dict[Place, list[Block]] = {}

    def of(self, total: np.ndarray, wire_bytes: int) -> list[Block]:
        """Returns the blocks of a sum (T, cols); a row of an addend has `wire_bytes`."""
        place = total.__array_interface__["data"][0], total.shape
        blocks = self._kept.get(place)
        if blocks is None:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            blocks = self._kept[place] = self._cut(len(total), total.shape[1], wire_bytes)
        return blocks

    def _cut(self, n_rows: int, cols: int, wire_bytes: int) -> list[Block]:
        rows_per_block = max(1, BLOCK_BYTES // (4 * cols))
        owners: list[tuple[int | None, range]] = [(None, range(n_rows))]
        if is_scattered(self._world_size, n_rows, wire_bytes, 4 * cols):
            edges = [n_rows * r // self._world_size for r in range(self._world_size + 1)]
            owners = [(r, range(edges[r], edges[r + 1])) for r in range(self._world_size)]
        blocks: list[Block] = []
        for owner, rows in owners:
            receivers = [r for r in self._others if owner in (None, r)]
            for first in range(rows.start, rows.stop, rows_per_block):
                part = slice(first, min(rows.stop, first + rows_per_block))
                n_bytes = (part.stop - first) * wire_bytes
                message = bytearray(HEADER_BYTES + n_bytes)
                wire = np.frombuffer(message, np.uint8, n_bytes, HEADER_BYTES)
                blocks.append(Block(len(blocks), part, owner, receivers, message, wire))
        return blocks
