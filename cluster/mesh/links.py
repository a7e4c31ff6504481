"""The links of the mesh: one inbox a rank, and one outgoing link to every other. Knows bytes, not
sums.

A message is one ZeroMQ frame: a fixed header and a payload. One frame costs 20 us less a round
trip than two, and a fixed header less than msgpack: on this link microseconds count. Between ranks
of one machine the same bytes go through shared memory (see shared_ring) as long as there is room,
and by ZeroMQ otherwise: messages are filed by what they are, not by when they came.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

import zmq

from cluster.mesh.receiver import BusyPollReceiver
from cluster.mesh.shared_ring import IS_SUPPORTED, RingReader, RingWriter
from cluster.security.links import MESH, LinkSecurity
from cluster.sockets import (
    Context,
    DisconnectWatch,
    Socket,
    bind_first_free,
    make_socket,
)
from dllama.errors import PeerLost, ProtocolError

log = logging.getLogger(__name__)

HEADER = struct.Struct("<4sBxHIQQQ12x")  # magic, phase, rank, block, epoch, sequence, compute
HEADER_BYTES = HEADER.size
MAGIC = b"dlm1"
MAX_AHEAD = 64  # collectives a peer may be ahead: gathers do not wait, all else does
MAX_MESSAGE_BYTES = 1 << 30
WAKE_UP = b""  # by ZeroMQ, to a rank that sleeps: there is something in its ring


class Phase(IntEnum):
    HELLO = 0
    PARTIAL = 1  # a rank's own addend
    REDUCED = 2  # a finished sum
    PART = 3  # a piece for rank 0


class Key(NamedTuple):
    """The key of a message that a receiver waits for."""

    sequence: int
    phase: int  # a Phase
    block: int
    rank: int


class Arrived(NamedTuple):
    payload: memoryview
    compute_ns: int  # how long the sender computed since the collective before


def uses_shared_memory() -> bool:
    """Returns whether ranks of one machine may share memory: DLLAMA_SHARED_MEMORY=0 keeps all on
    ZeroMQ, to measure the network's share on one machine."""
    return IS_SUPPORTED and os.environ.get("DLLAMA_SHARED_MEMORY", "1") != "0"


class MeshLinks:
    """Sends to and receives from every other rank of one epoch."""

    def __init__(
        self, rank: int, epoch: int, context: Context, watch: Callable[[], None] | None = None
    ) -> None:
        self.rank = rank
        self.epoch = epoch
        self.watch = watch  # called about four times a second while waiting; may raise
        self.sequence = 0  # the collective this rank is in
        self.sent_bytes = 0
        self.received_bytes = 0
        self.peers: Sequence[str] = ()  # endpoints by rank
        self.hosts: Sequence[str] = ()  # the names of the ranks in errors
        self._context = context
        self._inbox: Socket | None = None
        self._security: LinkSecurity | None = None
        self._outs: dict[int, Socket] = {}
        self._watches: dict[int, DisconnectWatch] = {}
        self._early: dict[Key, Arrived] = {}
        self._receiver = BusyPollReceiver()
        self._rings: dict[int, RingWriter] = {}

    def bind(self, host: str, ports: Iterable[int], security: LinkSecurity | None = None) -> int:
        """Opens the inbox on the first free port and returns it; with `security`, all links are
        encrypted."""
        self._security = security
        self._inbox = make_socket(
            self._context, zmq.PULL, host=host, max_message_bytes=MAX_MESSAGE_BYTES
        )
        if security is not None:
            security.listen_encrypted(self._inbox, MESH)
        return bind_first_free(self._inbox, host, ports)

    def connect(self, peers: Sequence[str], keys: Sequence[str] = ()) -> None:
        """Opens the outgoing links and lets the other ranks in; `peers` are endpoints and `keys`
        public keys by rank, this rank's own is ignored."""
        if self._security is not None:
            self._security.admit(MESH, keys)
        self.peers = peers
        self.hosts = self.hosts or peers
        for rank, peer in enumerate(peers):
            if rank == self.rank:
                continue
            out = make_socket(
                self._context,
                zmq.PUSH,
                host=peer.removeprefix("tcp://").rpartition(":")[0],
                max_message_bytes=MAX_MESSAGE_BYTES,
            )
            if self._security is not None:
                self._security.connect_encrypted(out, keys[rank])
            self._outs[rank] = out
            self._watches[rank] = DisconnectWatch(out)
            out.connect(peer)

    def greet(self, rank: int) -> None:
        """Says hello to a rank, and offers it a ring in case it is on this machine."""
        offer = b""
        if uses_shared_memory():
            with suppress(OSError):  # no memory to share: everything goes by ZeroMQ
                self._rings[rank] = RingWriter()
                offer = self._rings[rank].offer
        hello = bytearray(HEADER_BYTES) + offer
        self.pack_header(hello, Phase.HELLO, 0, 0, 0)
        self.send(rank, hello)

    def await_greeting(self, rank: int) -> None:
        """Waits until a rank has said hello. Raises as `take` does."""
        offer = self.take(Key(0, Phase.HELLO, 0, rank)).payload
        ring = RingReader.attach(offer) if offer and uses_shared_memory() else None
        if ring is not None:
            self._receiver.add(ring)

    def pack_header(
        self, buffer: bytearray | memoryview, phase: Phase, block: int, sequence: int, compute: int
    ) -> None:
        HEADER.pack_into(buffer, 0, MAGIC, phase, self.rank, block, self.epoch, sequence, compute)

    def send(self, rank: int, message: bytes | bytearray | memoryview) -> None:
        """Sends a whole message (header and payload), which is copied."""
        out, ring = self._outs[rank], self._rings.get(rank)
        sleeps = None if ring is None else ring.write(message)
        if sleeps is not None:
            self.sent_bytes += len(message)
            if not sleeps:
                return
            message = WAKE_UP
        while True:
            try:
                out.send(message)
                break
            except zmq.Again:  # the peer's queue is full: it may be waiting for us to read
                self._drain()
                self._look_around()
        self.sent_bytes += len(message)

    def take(self, key: Key) -> Arrived:
        """Waits for one message. Raises PeerLost when a peer leaves, or what `watch` raises."""
        while key not in self._early:
            self._receive()
        return self._early.pop(key)

    def lost_rank(self) -> int | None:
        """Returns a rank whose link broke, rank 0 first; None while all hold."""
        return next((r for r, w in sorted(self._watches.items()) if w.is_lost()), None)

    @property
    def n_rings(self) -> int:
        """Ranks that are reached through shared memory."""
        return len(self._rings)

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        for out in self._outs.values():
            out.close()
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._receiver.close()
        if self._inbox is not None:
            self._inbox.close()
        self._watches.clear()
        self._outs.clear()
        self._inbox = None

    def _receive(self) -> None:
        assert self._inbox is not None, "bind() comes before take()"
        try:
            frames = self._receiver.receive(self._inbox)
        except zmq.Again:
            self._look_around()
        else:
            self._keep(b"".join(frames))

    def _drain(self) -> None:
        assert self._inbox is not None, "bind() comes before send()"
        while (frames := self._receiver.look(self._inbox, n_looks=1)) is not None:
            self._keep(b"".join(frames))

    def _look_around(self) -> None:
        if self.watch is not None:
            self.watch()
        self.check()

    def check(self) -> None:
        """Raises PeerLost if a link broke."""
        lost = self.lost_rank()
        if lost is not None:
            self._drain()  # what it still sent is not needed, but its inbox should not block it
            raise PeerLost(
                f"rank {lost} at {self.hosts[lost]} closed its link to rank {self.rank}, or did "
                "not answer on it for seconds",
                rank=lost,
                host=self.hosts[lost],
            )

    def _keep(self, message: bytes) -> None:
        """Stores a message under its key; drops messages of other epochs and anything else."""
        if message == WAKE_UP:
            return
        if len(message) < HEADER_BYTES:
            log.warning("dropped a message of %d bytes on the mesh inbox", len(message))
            return
        magic, phase, rank, block, epoch, sequence, compute = HEADER.unpack_from(message)
        if magic != MAGIC or epoch != self.epoch:
            log.debug("dropped a stale message (epoch %x)", epoch)
            return
        if not self._is_peer(rank) or not 0 <= sequence - self.sequence <= MAX_AHEAD:
            raise ProtocolError(
                f"rank {self.rank} is at collective {self.sequence} and was sent one numbered "
                f"{sequence} by rank {rank}; install the same dllama on every node"
            )
        self.received_bytes += len(message)
        key = Key(sequence, phase, block, rank)
        self._early[key] = Arrived(memoryview(message)[HEADER_BYTES:], compute)

    def _is_peer(self, rank: int) -> bool:
        return rank != self.rank and (not self.peers or rank < len(self.peers))
