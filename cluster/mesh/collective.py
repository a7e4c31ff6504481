"""Collectives over a full mesh of ZeroMQ links: every rank sends its partial straight to every
other, and all add in rank order, so that all hold the same bits.

Three times are told apart. *Compute* is what passes between two collectives. A partial carries how
long its sender computed; all ranks leave a collective at about the same time, so the time by
which the slowest of the others computed longer than this rank is *wait*. What else a collective
takes is *network*: sending, the wire, wake-ups, encoding and adding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.mesh.compiled_sums import CompiledSums
from cluster.mesh.filing import Key, Phase
from cluster.mesh.links import HEADER_BYTES, MeshLinks
from cluster.mesh.sync_type import SyncType, make_codec
from cluster.security.epoch_links import SessionLinks
from cluster.sockets import Context
from dllama.collective import Addend
from dllama.errors import PeerLost, ProtocolError
from dllama.runtime.meter import SyncTimes
from kernels.program import Call
from kernels.wire.exchange import (
    COMPUTE_NS,
    NETWORK_NS,
    SINCE_NS,
    SLOWEST_NS,
    STARTED_NS,
    WAIT_NS,
)

BLOCK_BYTES = 1 << 20  # the longest message: heartbeats pass between messages, on slow links too
SCATTER_BYTES = 256 << 10  # payloads from here on are bound by bandwidth, not by latency


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that travel in one message; `owner` adds them up for all (None: every rank does).

    Its buffers are made once for all payloads of a shape: ZeroMQ copies what it is given.
    """

    number: int
    rows: slice
    owner: int | None
    receivers: list[int]  # who adds up what this rank computed of it
    message: bytearray  # header and wire
    wire: np.ndarray  # this rank's addend, uint8 over `message`, less what rarely follows


class MeshCollective:
    """One rank's Collective over the network."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        epoch: int,
        *,
        sync_type: SyncType,
        context: Context,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.sync_type = sync_type
        self.links = MeshLinks(rank, epoch, context, watch)
        self._codec = make_codec(sync_type)
        self._others = [r for r in range(world_size) if r != rank]
        self._counters = self.links.counters
        self._compiled: CompiledSums | None = None
        self._shape = (0, 0)  # of the payload that `_blocks` cut
        self._blocks: list[Block] = []
        self.begin_step()

    @property
    def times(self) -> SyncTimes:
        """The times of all collectives so far."""
        counted = self._counters
        return SyncTimes(int(counted[COMPUTE_NS]), int(counted[WAIT_NS]), int(counted[NETWORK_NS]))

    def bind(self, host: str, ports: Iterable[int], security: SessionLinks | None = None) -> int:
        """Opens the inbox on the first free port and returns it; with `security`, all links are
        encrypted."""
        return self.links.bind(host, ports, security)

    def connect(self, peers: Sequence[str], timeout_s: float, keys: Sequence[str] = ()) -> None:
        """Connects to every peer and hears each once; `keys` are their public keys by rank.

        Raises PeerLost that names whom this rank could not reach or hear in time.
        """
        self.links.connect(peers, keys)
        deadline = time.monotonic() + timeout_s
        watch = self.links.watch
        current = [0]

        def watch_clock() -> None:
            if watch is not None:
                watch()
            if time.monotonic() > deadline:
                silent = current[0]
                raise PeerLost(
                    f"rank {self.rank} and rank {silent} at {self.links.hosts[silent]} did not "
                    f"reach each other within {timeout_s:g} s; open the session ports of both "
                    "hosts for one another, or name the hosts by addresses that all can reach",
                    rank=silent,
                    host=self.links.hosts[silent],
                )

        self.links.watch = watch_clock
        try:
            for current[0] in self._others:
                self.links.greet(current[0])
            for current[0] in self._others:
                self.links.await_greeting(current[0])
        finally:
            self.links.watch = watch
        self._compiled = CompiledSums(self.links, self.world_size)

    def begin_step(self) -> None:
        """Starts the clock of this rank's computing: called when a step's work begins."""
        self._counters[SINCE_NS] = time.perf_counter_ns()

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        if self._shape != out.shape:
            self._lay_out(*out.shape)
        if self._compiled is not None and self._compiled.is_begun:
            self._finish(self._compiled.finish_sending(x, out), out)
            return
        started = self._enter()
        if isinstance(x, np.ndarray):
            x = np.ascontiguousarray(x, np.float32)
        compute_ns = started - int(self._counters[SINCE_NS])
        own = []
        for block in self._blocks:
            more = self._codec.encode(x, block.rows, block.wire)
            message = block.message + more if more else block.message
            own.append(np.frombuffer(message, np.uint8, -1, HEADER_BYTES))
            self._send(message, Phase.PARTIAL, block, block.receivers, compute_ns)
        for block, wire in zip(self._blocks, own, strict=True):
            if block.owner is None or block.owner == self.rank:
                self._add_up(block, wire, out[block.rows])
        for block in self._blocks:
            if block.owner is not None and block.owner != self.rank:
                self._take_sum(block, out[block.rows])
        self._leave(started)

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        if self._compiled is None or not self._compiled.is_supported:
            return None
        if self.sync_type not in (SyncType.EXACT, SyncType.F32):
            return None
        if self._shape != out.shape:
            self._lay_out(*out.shape)
        is_small = len(self._blocks) == 1 and self._blocks[0].owner is None
        return self._compiled.call(x, out) if is_small else None

    def _finish(self, own: np.ndarray, out: np.ndarray) -> None:
        """Finishes a sum that compiled code has begun."""
        (block,) = self._blocks
        self._add_up(block, own, out)
        self._leave(int(self._counters[STARTED_NS]))

    def gather(self, part: bytes) -> list[bytes] | None:
        started = self._enter()
        if self.rank != 0:
            message = bytearray(HEADER_BYTES) + part
            compute_ns = started - int(self._counters[SINCE_NS])
            self.links.pack_header(message, Phase.PART, 0, self.links.sequence, compute_ns)
            self.links.send(0, message)
            self._leave(started)
            return None
        parts = [part]
        for rank in self._others:
            arrived = self.links.take(Key(self.links.sequence, Phase.PART, 0, rank))
            self._note_slowest(arrived.compute_ns)
            parts.append(bytes(arrived.payload))
        self._leave(started)
        return parts

    def close(self) -> None:
        if self._compiled is not None:
            self._compiled.close()
            self._compiled = None
        self.links.close()

    def _enter(self) -> int:
        self.links.sequence += 1
        self._counters[SLOWEST_NS] = 0
        return time.perf_counter_ns()

    def _note_slowest(self, compute_ns: int) -> None:
        self._counters[SLOWEST_NS] = max(int(self._counters[SLOWEST_NS]), compute_ns)

    def _leave(self, started: int) -> None:
        now, counted = time.perf_counter_ns(), self._counters
        computed, blocked = started - int(counted[SINCE_NS]), now - started
        waited = min(blocked, max(0, int(counted[SLOWEST_NS]) - computed))
        counted[COMPUTE_NS] += computed
        counted[WAIT_NS] += waited
        counted[NETWORK_NS] += blocked - waited
        counted[SINCE_NS] = now

    def _lay_out(self, n_rows: int, cols: int) -> None:
        """Cuts payloads of a shape; the same on every rank, since it depends on shapes alone."""
        wire_bytes = self._codec.row_bytes(cols)
        rows_per_block = max(1, BLOCK_BYTES // (4 * cols))
        owners: list[tuple[int | None, range]] = [(None, range(n_rows))]
        if self.is_scattered(n_rows, wire_bytes, 4 * cols):
            edges = [n_rows * r // self.world_size for r in range(self.world_size + 1)]
            owners = [(r, range(edges[r], edges[r + 1])) for r in range(self.world_size)]
        self._shape, self._blocks = (n_rows, cols), []
        for owner, rows in owners:
            receivers = [r for r in self._others if owner in (None, r)]
            for first in range(rows.start, rows.stop, rows_per_block):
                part = slice(first, min(rows.stop, first + rows_per_block))
                n_bytes = (part.stop - first) * wire_bytes
                message = bytearray(HEADER_BYTES + n_bytes)
                wire = np.frombuffer(message, np.uint8, n_bytes, HEADER_BYTES)
                number = len(self._blocks)
                self._blocks.append(Block(number, part, owner, receivers, message, wire))

    def is_scattered(self, n_rows: int, wire_bytes: int, sum_bytes: int) -> bool:
        """Returns whether reduce-scatter and all-gather beat sending all to all.

        Each rank sends N - 1 payloads plainly; scattered, it sends N - 1 Nth parts of partials in
        the wire type and as many of sums in float32. The second hop must be worth a quarter.
        """
        scattered = (wire_bytes + sum_bytes) / self.world_size
        is_large = n_rows >= self.world_size and n_rows * wire_bytes >= SCATTER_BYTES
        return is_large and scattered <= 0.75 * wire_bytes

    def _send(
        self, message: bytearray, phase: Phase, block: Block, receivers: list[int], compute_ns: int
    ) -> None:
        self.links.pack_header(message, phase, block.number, self.links.sequence, compute_ns)
        for rank in receivers:
            self.links.send(rank, message)

    def _add_up(self, block: Block, own: np.ndarray, total: np.ndarray) -> None:
        """Writes the sum of every rank's addend to `total`, the block's rows of the sum, and sends
        it on where others need it."""
        wires = [own] * self.world_size
        for rank in self._others:
            key = Key(self.links.sequence, Phase.PARTIAL, block.number, rank)
            arrived = self.links.take(key)
            self._note_slowest(arrived.compute_ns)
            wires[rank] = np.frombuffer(arrived.payload, np.uint8)
        self._codec.add_up(wires, total)
        if block.owner == self.rank:
            message = bytearray(HEADER_BYTES) + total.data.cast("B")
            self._send(message, Phase.REDUCED, block, self._others, 0)

    def _take_sum(self, block: Block, total: np.ndarray) -> None:
        assert block.owner is not None
        key = Key(self.links.sequence, Phase.REDUCED, block.number, block.owner)
        wire = self._checked(self.links.take(key).payload, total.nbytes, block.owner)
        total[:] = wire.view("<f4").reshape(total.shape)

    def _checked(self, payload: memoryview, n_bytes: int, rank: int) -> np.ndarray:
        if len(payload) != n_bytes:
            raise ProtocolError(
                f"rank {rank} sent {len(payload)} bytes to a collective where rank {self.rank} "
                f"expects {n_bytes}; install the same dllama on every node"
            )
        wire: np.ndarray = np.frombuffer(payload, np.uint8)
        return wire
