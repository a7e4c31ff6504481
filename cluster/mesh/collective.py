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

import numpy as np

from cluster.mesh.compiled_sums import CompiledSums
from cluster.mesh.filing import Key, Phase
from cluster.mesh.layout import Block, Layouts
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

MIN_GROUP_ROWS = 48  # a group of fewer rows reads the weights again for too little


class MeshSum:
    """A sum over all ranks that is under way: this rank's addend has been sent."""

    def __init__(
        self, mesh: MeshCollective, sequence: int, blocks: list[Block], own: list[np.ndarray],
        total: np.ndarray,
    ) -> None:  # fmt: skip
        self._mesh = mesh
        self.sequence, self.blocks, self.own, self.total = sequence, blocks, own, total

    def advance(self) -> None:
        """Adds up what this rank adds up for all, and sends it on. Raises PeerLost."""
        if any(block.owner is not None for block in self.blocks):
            self._mesh.blocking(lambda: self._mesh.add_up_for_all(self))

    def finish(self) -> None:
        """Waits for the sum. Raises PeerLost."""
        self._mesh.blocking(lambda: self._mesh.complete(self))
        self._mesh.links.end_collective(self.sequence)


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
        self._layouts = Layouts(rank, world_size)
        self._counters = self.links.counters
        self._compiled: CompiledSums | None = None
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
        if self._compiled is not None and self._compiled.is_begun:
            self._finish_compiled(self._compiled, x, out)
            return
        started = self._enter()
        under_way = self._begin(x, out)
        self.add_up_for_all(under_way)
        self.complete(under_way)
        self._leave(started)

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        if self._compiled is None or not self._compiled.is_supported:
            return None
        if self.sync_type not in (SyncType.EXACT, SyncType.F32):
            return None
        blocks = self._blocks(out)
        is_small = len(blocks) == 1 and blocks[0].owner is None
        return self._compiled.call(x, out) if is_small else None

    def begin_all_reduce(self, x: Addend, out: np.ndarray) -> MeshSum:
        started = self._enter()
        self.links.begin_collective()
        under_way = self._begin(x, out)
        self._leave(started)
        return under_way

    def n_groups(self, n_rows: int) -> int:
        if n_rows < 2 * MIN_GROUP_ROWS or self.links.n_rings == len(self._others):
            return 1
        has_two_hops = n_rows >= 3 * MIN_GROUP_ROWS and self.world_size > 2
        return 3 if has_two_hops else 2

    def blocking(self, work: Callable[[], None]) -> None:
        """Does a part of a sum, which counts as network: others may have computed meanwhile."""
        started = time.perf_counter_ns()
        self._counters[SLOWEST_NS] = 0
        work()
        self._counters[SLOWEST_NS] = 0
        self._leave(started)

    def add_up_for_all(self, under_way: MeshSum) -> None:
        """Adds up the blocks that are this rank's, and sends their sums to all others."""
        for block, wire in zip(under_way.blocks, under_way.own, strict=True):
            if block.owner == self.rank:
                total = under_way.total[block.rows]
                self._add_up(under_way.sequence, block, wire, total)
                message = bytearray(HEADER_BYTES) + total.data.cast("B")
                self._send(message, Phase.REDUCED, block, self._others, under_way.sequence, 0)

    def complete(self, under_way: MeshSum) -> None:
        """Adds up the blocks that every rank adds up, and waits for the sums of others."""
        for block, wire in zip(under_way.blocks, under_way.own, strict=True):
            if block.owner is None:
                self._add_up(under_way.sequence, block, wire, under_way.total[block.rows])
        for block in under_way.blocks:
            if block.owner not in (None, self.rank):
                self._take_sum(under_way.sequence, block, under_way.total[block.rows])

    def _begin(self, x: Addend, out: np.ndarray) -> MeshSum:
        """Sends this rank's addend."""
        if isinstance(x, np.ndarray):
            x = np.ascontiguousarray(x, np.float32)
        compute_ns = int(self._counters[STARTED_NS] - self._counters[SINCE_NS])
        sequence, blocks = self.links.sequence, self._blocks(out)
        own = []
        for block in blocks:
            more = self._codec.encode(x, block.rows, block.wire)
            message = block.message + more if more else block.message
            own.append(np.frombuffer(message, np.uint8, -1, HEADER_BYTES))
            self._send(message, Phase.PARTIAL, block, block.receivers, sequence, compute_ns)
        return MeshSum(self, sequence, blocks, own, out)

    def _finish_compiled(self, compiled: CompiledSums, x: Addend, out: np.ndarray) -> None:
        """Finishes a sum that compiled code has begun."""
        own = compiled.finish_sending(x, out)
        self.complete(MeshSum(self, self.links.sequence, self._blocks(out), [own], out))
        self._leave(int(self._counters[STARTED_NS]))

    def _blocks(self, total: np.ndarray) -> list[Block]:
        return self._layouts.of(total, self._codec.row_bytes(total.shape[1]))

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
        started = time.perf_counter_ns()
        self._counters[SLOWEST_NS], self._counters[STARTED_NS] = 0, started
        return started

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

    def _send(
        self, message: bytearray, phase: Phase, block: Block, receivers: list[int], sequence: int,
        compute_ns: int,
    ) -> None:  # fmt: skip
        self.links.pack_header(message, phase, block.number, sequence, compute_ns)
        for rank in receivers:
            self.links.send(rank, message)

    def _add_up(self, sequence: int, block: Block, own: np.ndarray, total: np.ndarray) -> None:
        """Writes the sum of every rank's addend to `total`, the block's rows of the sum."""
        wires = [own] * self.world_size
        for rank in self._others:
            arrived = self.links.take(Key(sequence, Phase.PARTIAL, block.number, rank))
            self._note_slowest(arrived.compute_ns)
            wires[rank] = np.frombuffer(arrived.payload, np.uint8)
        self._codec.add_up(wires, total)

    def _take_sum(self, sequence: int, block: Block, total: np.ndarray) -> None:
        assert block.owner is not None
        key = Key(sequence, Phase.REDUCED, block.number, block.owner)
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
