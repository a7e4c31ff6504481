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
from cluster.mesh.layout import BLOCK_BYTES, Block, Layouts, n_groups
from cluster.mesh.links import HEADER_BYTES, MeshLinks
from cluster.mesh.sync_type import SyncCodec, SyncType, make_codec, rows_in_place
from cluster.security.epoch_links import SessionLinks
from cluster.sockets import Context
from dllama.collective import Addend, Pending, RowShares
from dllama.errors import PeerLost, ProtocolError
from dllama.runtime.meter import SyncTimes
from kernels.matmul.sums import FixedSums
from kernels.program import Call
from kernels.wire.places import (
    COMPUTE_NS,
    NETWORK_NS,
    SINCE_NS,
    SLOWEST_NS,
    STARTED_NS,
    WAIT_NS,
)


class _UnderWay:
    """A collective whose own part has been sent: `complete` waits for the rest."""

    def __init__(self, mesh: MeshCollective, complete: Callable[[], None]) -> None:
        self._mesh, self._complete, self._sequence = mesh, complete, mesh.links.sequence

    def finish(self) -> None:
        """Waits for the results. Raises PeerLost."""
        self._mesh.blocking(self._complete)
        self._mesh.links.end_collective(self._sequence)


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
        polls: bool = True,
    ) -> None:
        """With `polls` the rank polls for messages a while before it sleeps."""
        self.rank = rank
        self.world_size = world_size
        self.sync_type = sync_type
        self.links = MeshLinks(rank, epoch, context, watch, polls=polls)
        self._codec, self._exact = make_codec(sync_type), make_codec(SyncType.EXACT)
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

        def watch_clock() -> None:
            if watch is not None:
                watch()
            if time.monotonic() > deadline:
                silent = self.links.waits_for
                raise PeerLost(
                    f"rank {self.rank} and rank {silent} at {self.links.hosts[silent]} did not "
                    f"reach each other within {timeout_s:g} s; open the session ports of both "
                    "hosts for one another, or name the hosts by addresses that all can reach",
                    rank=silent,
                    host=self.links.hosts[silent],
                )

        self.links.watch = watch_clock
        try:
            for rank in self._others:
                self.links.greet(rank)
            for rank in self._others:
                self.links.await_greeting(rank)
            self.links.meet(self._others)
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
        wire_bytes = self._wire_bytes(x, out)
        if self._layouts.is_scattered(out, wire_bytes):
            shares = self.shares(len(out))
            self.begin_reduce_scatter(x, out, shares).finish()
            self.begin_all_gather(out, shares).finish()
            return
        started = self._enter()
        blocks = self._layouts.to_all(out, wire_bytes)
        own = self._send_addends(x, blocks)
        self._add_up_all(self._codec_of(x), self.links.sequence, blocks, own, out)
        self._leave(started)

    def all_reduce_call(self, x: Addend, out: np.ndarray) -> Call | None:
        if self._compiled is None or not self._compiled.is_supported:
            return None
        if self.sync_type is not SyncType.F32 and not isinstance(x, FixedSums):
            return None
        is_scattered = self._layouts.is_scattered(out, self._wire_bytes(x, out))
        is_small = out.nbytes <= BLOCK_BYTES and not is_scattered  # one message to all
        return self._compiled.call(x, out) if is_small else None

    def shares(self, n_rows: int) -> RowShares:
        return RowShares.even(n_rows, self.rank, self.world_size)

    def begin_reduce_scatter(self, x: Addend, out: np.ndarray, shares: RowShares) -> Pending:
        started = self._enter()
        self.links.begin_collective()
        blocks = self._layouts.scattered(out, self._wire_bytes(x, out), shares)
        own, sequence = self._send_addends(x, blocks), self.links.sequence
        mine = [i for i, block in enumerate(blocks) if block.owner == self.rank]
        blocks, own = [blocks[i] for i in mine], [own[i] for i in mine]
        codec = self._codec_of(x)
        pending = _UnderWay(self, lambda: self._add_up_all(codec, sequence, blocks, own, out))
        self._leave(started)
        return pending

    def begin_all_gather(self, rows: np.ndarray, shares: RowShares) -> Pending:
        started = self._enter()
        self.links.begin_collective()
        blocks, sequence = self._layouts.gathered(rows, shares), self.links.sequence
        for block in blocks:
            if block.owner == self.rank:
                block.wire[:] = rows[block.rows].reshape(-1).view(np.uint8)
                self._send(block.message, Phase.ROWS, block, sequence, 0)
        pending = _UnderWay(self, lambda: self._take_rows(sequence, blocks, rows))
        self._leave(started)
        return pending

    def n_groups(self, n_rows: int, dim: int, least_rows: int) -> int:
        return n_groups(n_rows, dim, least_rows, self.world_size)

    def blocking(self, work: Callable[[], None]) -> None:
        """Does a part of a sum, which counts as network: others may have computed meanwhile."""
        started = time.perf_counter_ns()
        self._counters[SLOWEST_NS] = 0
        work()
        self._counters[SLOWEST_NS] = 0
        self._leave(started)

    def _send_addends(self, x: Addend, blocks: list[Block]) -> list[np.ndarray]:
        """Sends this rank's addend; returns what of it there is of each block."""
        if isinstance(x, np.ndarray):
            x = np.ascontiguousarray(x, np.float32)
        compute_ns = int(self._counters[STARTED_NS] - self._counters[SINCE_NS])
        own, codec = [], self._codec_of(x)
        for block in blocks:
            in_place = rows_in_place(x, block.rows) if block.owner is not None else None
            if in_place is not None:
                own.append(in_place)
                self._send_in_place(in_place, block, compute_ns)
                continue
            more = codec.encode(x, block.rows, block.wire)
            message = block.message + more if more else block.message
            own.append(np.frombuffer(message, np.uint8, -1, HEADER_BYTES))
            self._send(message, Phase.PARTIAL, block, self.links.sequence, compute_ns)
        return own

    def _send_in_place(self, payload: np.ndarray, block: Block, compute_ns: int) -> None:
        """Sends rows from where they are."""
        header, sequence = bytearray(HEADER_BYTES), self.links.sequence
        self.links.pack_header(header, Phase.PARTIAL, block.number, sequence, compute_ns)
        for rank in block.receivers:
            self.links.send_parts(rank, header, payload)

    def _finish_compiled(self, compiled: CompiledSums, x: Addend, out: np.ndarray) -> None:
        """Finishes a sum that compiled code has begun."""
        own = compiled.finish_sending(x, out)
        blocks = self._layouts.to_all(out, self._wire_bytes(x, out))
        self._add_up_all(self._codec_of(x), self.links.sequence, blocks, [own], out)
        self._leave(int(self._counters[STARTED_NS]))

    def _codec_of(self, x: Addend) -> SyncCodec:
        """Exact sums travel as they are, whatever the type of others."""
        return self._exact if isinstance(x, FixedSums) else self._codec

    def _wire_bytes(self, x: Addend, total: np.ndarray) -> int:
        return self._codec_of(x).row_bytes(total.shape[1])

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
        self, message: bytearray, phase: Phase, block: Block, sequence: int, compute_ns: int
    ) -> None:
        self.links.pack_header(message, phase, block.number, sequence, compute_ns)
        is_awaited = phase == Phase.PARTIAL and block.owner is None  # of a sum to all
        for rank in block.receivers:
            self.links.send(rank, message, is_awaited=is_awaited)

    def _add_up_all(
        self, codec: SyncCodec, sequence: int, blocks: Iterable[Block], own: Iterable[np.ndarray],
        total: np.ndarray,
    ) -> None:  # fmt: skip
        for block, wire in zip(blocks, own, strict=True):
            self._add_up(codec, sequence, block, wire, total[block.rows])

    def _add_up(
        self, codec: SyncCodec, sequence: int, block: Block, own: np.ndarray, total: np.ndarray
    ) -> None:
        """Writes the sum of every rank's addend to `total`, the block's rows of the sum."""
        wires = [own] * self.world_size
        for rank in self._others:
            arrived = self.links.take(Key(sequence, Phase.PARTIAL, block.number, rank))
            self._note_slowest(arrived.compute_ns)
            wires[rank] = np.frombuffer(arrived.payload, np.uint8)
        codec.add_up(wires, total)

    def _take_rows(self, sequence: int, blocks: list[Block], rows: np.ndarray) -> None:
        for block in blocks:
            if block.owner is None or block.owner == self.rank:
                continue
            part = rows[block.rows]
            key = Key(sequence, Phase.ROWS, block.number, block.owner)
            wire = self._checked(self.links.take(key).payload, part.nbytes, block.owner)
            part[:] = wire.view("<f4").reshape(part.shape)

    def _checked(self, payload: memoryview, n_bytes: int, rank: int) -> np.ndarray:
        if len(payload) != n_bytes:
            raise ProtocolError(
                f"rank {rank} sent {len(payload)} bytes to a collective where rank {self.rank} "
                f"expects {n_bytes}; install the same dllama on every node"
            )
        wire: np.ndarray = np.frombuffer(payload, np.uint8)
        return wire
