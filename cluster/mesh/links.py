"""The links of the mesh: one inbox a rank, and one outgoing link to every other. Knows bytes, not
sums.

A message is one ZeroMQ frame: a fixed header and a payload. One frame costs 20 us less a round
trip than two, and a fixed header less than msgpack: on this link microseconds count. Between ranks
of one machine the same bytes go through shared memory (see shared_ring) as long as there is room,
and between machines through TCP connections of their own, a line for short ones and a stream for
long ones (see meeting). All else goes by ZeroMQ: messages are filed by what they are, not by when
they came.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np
import zmq

from cluster.mesh.connections import Connections
from cluster.mesh.filing import MAX_PART_BYTES, Arrived, Filing, Key, Phase
from cluster.mesh.meeting import meet, uses_connections
from cluster.mesh.receiver import BusyPollReceiver
from cluster.mesh.shared_ring import IS_SUPPORTED, RingReader, RingWriter
from cluster.mesh.stream import Bell
from cluster.repeats import Repeats
from cluster.security.epoch_links import SessionLinks
from cluster.security.links import MESH, LinkSecurity
from cluster.sockets import (
    SLICE_MS,
    Context,
    DisconnectWatch,
    Socket,
    bind_first_free,
    make_socket,
)
from dllama.errors import PeerLost
from kernels.wire import places

log = logging.getLogger(__name__)

HEADER = struct.Struct("<4sBxHIQQQ12x")  # magic, phase, rank, block, epoch, sequence, compute
HEADER_BYTES = HEADER.size
MAGIC = b"dlm1"
MAX_DRAINED = 10_000  # messages read at once between two looks around
MAX_MESSAGE_BYTES = MAX_PART_BYTES + HEADER_BYTES
WAKE_UP = b""  # by ZeroMQ, to a rank that sleeps: there is something in its ring


def uses_shared_memory() -> bool:
    """Returns whether ranks of one machine may share memory: DLLAMA_SHARED_MEMORY=0 keeps all on
    ZeroMQ, to measure the network's share on one machine."""
    return IS_SUPPORTED and os.environ.get("DLLAMA_SHARED_MEMORY", "1") != "0"


class MeshLinks:
    """Sends to and receives from every other rank of one epoch."""

    def __init__(
        self, rank: int, epoch: int, context: Context, watch: Callable[[], None] | None = None,
        *, polls: bool = True,
    ) -> None:  # fmt: skip
        """With `polls` it polls for messages a while before it sleeps."""
        self.rank = rank
        self.epoch = epoch
        self.watch = watch  # called about four times a second while waiting; may raise
        self.counters = np.zeros(places.SESSION_WORDS, np.int64)  # compiled code counts there too
        self.peers: Sequence[str] = ()  # endpoints by rank
        self.hosts: Sequence[str] = ()  # the names of the ranks in errors
        self.waits_for = -1  # the rank that is greeted or heard last, while ranks come together
        self.counters[places.POLL_NS] = places.SPIN_NS if polls else 0
        self._context = context
        self._inbox: Socket | None = None
        self._security: SessionLinks | None = None
        self._outs: dict[int, Socket] = {}
        self._watches: dict[int, DisconnectWatch] = {}
        self._filing = Filing(rank, self.counters)
        self._repeats = Repeats()
        self._useless_since: float | None = None  # messages that bring nothing keep coming
        self._receiver = BusyPollReceiver(int(self.counters[places.POLL_NS]))
        self._rings: dict[int, RingWriter] = {}
        self._ring_readers: dict[int, RingReader] = {}
        self._listen: tuple[str, list[int]] = ("", [])
        self._connections: Connections | None = None

    @property
    def sent_bytes(self) -> int:
        return int(self.counters[places.SENT_BYTES])

    @property
    def received_bytes(self) -> int:
        return int(self.counters[places.RECEIVED_BYTES])

    @property
    def inbox(self) -> Socket:
        """The socket that all other ranks send to."""
        assert self._inbox is not None, "bind() comes before receiving"
        return self._inbox

    def ways_to(self, rank: int) -> tuple[int, int, int, int]:
        """Returns the addresses of a rank's outgoing socket, of the rings to and from it, and of
        the line to it; 0 where there is none."""
        to, back = self._rings.get(rank), self._ring_readers.get(rank)
        return (
            self._outs[rank].underlying,
            0 if to is None else to.address,
            0 if back is None else back.address,
            0 if self._connections is None else self._connections.address_of_line(rank),
        )

    @property
    def sequence(self) -> int:
        """The collective this rank is in."""
        return self._filing.sequence

    @sequence.setter
    def sequence(self, sequence: int) -> None:
        self._filing.sequence = sequence

    def begin_collective(self) -> None:
        """Lets the collective this rank is in go on while others begin."""
        self._filing.begin()

    def end_collective(self, sequence: int) -> None:
        """Ends a collective that went on."""
        self._filing.end(sequence)

    def bind(self, host: str, ports: Iterable[int], security: SessionLinks | None = None) -> int:
        """Opens the inbox on the first free port and returns it; with `security`, all links are
        encrypted."""
        self._security, self._listen = security, (host, list(ports))
        self._inbox = make_socket(
            self._context, zmq.PULL, host=host, max_message_bytes=MAX_MESSAGE_BYTES
        )
        if security is not None:
            security.listen(self._inbox, MESH)
        return bind_first_free(self._inbox, *self._listen)

    def connect(self, peers: Sequence[str], keys: Sequence[str] = ()) -> None:
        """Opens the outgoing links and lets the other ranks in; `peers` are endpoints and `keys`
        public keys by rank, this rank's own is ignored."""
        if self._security is not None:
            self._security.admit(MESH, keys)
        self.peers = peers
        self.hosts = self.hosts or peers
        self._filing.names = self.hosts
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
                self._security.connect(out, keys[rank] if keys else "")
            self._outs[rank] = out
            self._watches[rank] = DisconnectWatch(out)
            out.connect(peer)

    def greet(self, rank: int) -> None:
        """Says hello to a rank, and offers it a ring in case it is on this machine."""
        self.waits_for = rank
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
        self.waits_for = rank
        offer = self.take(Key(0, Phase.HELLO, 0, rank)).payload
        ring = RingReader.attach(offer) if offer and uses_shared_memory() else None
        if ring is not None:
            self._ring_readers[rank] = ring
            self._receiver.add(ring)

    def tell(self, rank: int, block: int, payload: bytes) -> None:
        """Tells a rank something about the connections that they come to."""
        message = bytearray(HEADER_BYTES) + payload
        self.pack_header(message, Phase.MEETING, block, 0, 0)
        self.send(rank, message)

    def hear(self, rank: int, block: int) -> memoryview:
        """Waits for what a rank tells about the connections to it. Raises as `take` does."""
        self.waits_for = rank
        return self.take(Key(0, Phase.MEETING, block, rank)).payload

    def meet(self, others: Sequence[int]) -> None:
        """Makes connections to ranks on other machines, and sends by these from now on. Raises as
        `take` does, and OSError where this machine gives no more threads or descriptors."""
        bell, wanted = None, []
        if uses_connections():
            wanted = [rank for rank in others if rank not in self._ring_readers]
            with suppress(OSError):
                bell = Bell() if wanted else None
        is_encrypted = isinstance(self._security, LinkSecurity)
        try:
            met = meet(
                self, wanted if bell else [], others, *self._listen, is_encrypted=is_encrypted
            )
        except BaseException:
            if bell is not None:
                bell.close()
            raise
        if bell is not None and met:
            self._connections = self._receiver.connections = Connections(met, bell)
        elif bell is not None:
            bell.close()

    def pack_header(
        self, buffer: bytearray | memoryview, phase: Phase, block: int, sequence: int, compute: int
    ) -> None:
        HEADER.pack_into(buffer, 0, MAGIC, phase, self.rank, block, self.epoch, sequence, compute)

    def send(
        self, rank: int, message: bytes | bytearray | memoryview, *, is_awaited: bool = True
    ) -> None:
        """Sends a whole message (header and payload), which is copied. The receiver may wait in
        compiled code for one that `is_awaited`; others may take the way for long ones."""
        if self._write_to_ring(rank, message):
            return
        if self._connections is not None and self._connections.write(
            rank, message, is_long=not is_awaited
        ):
            self.counters[places.SENT_BYTES] += len(message)
            return
        self._send_by_zmq(rank, message)

    def send_parts(self, rank: int, header: bytearray, payload: np.ndarray) -> None:
        """Sends a long message, whose payload (n,) uint8 is copied once where there is a ring or a
        stream."""
        if self._write_to_ring(rank, header, payload.data):
            return
        own, parts = self._connections, (np.frombuffer(header, np.uint8), payload)
        if own is not None and own.write_parts(rank, *parts):
            self.counters[places.SENT_BYTES] += len(header) + len(payload)
        else:
            self._send_by_zmq(rank, header + payload.tobytes())

    def _write_to_ring(self, rank: int, *parts: bytes | bytearray | memoryview) -> bool:
        """Sends a message through shared memory; returns whether it was taken."""
        ring = self._rings.get(rank)
        sleeps = None if ring is None else ring.write(*parts)
        if sleeps is None:
            return False
        self.counters[places.SENT_BYTES] += sum(map(len, parts))
        if sleeps:
            self._send_by_zmq(rank, WAKE_UP)
        return True

    def _send_by_zmq(self, rank: int, message: bytes | bytearray | memoryview) -> None:
        while True:
            try:
                self._outs[rank].send(message)
                break
            except zmq.Again:  # the peer's queue is full: it may be waiting for us to read
                self.drain()
                self._look_around()
        self.counters[places.SENT_BYTES] += len(message)

    def take(self, key: Key) -> Arrived:
        """Waits for one message. Raises PeerLost when a peer leaves, or what `watch` raises."""
        while key not in self._filing:
            self._receive()
        return self._filing.take(key)

    def lost_rank(self) -> int | None:
        """Returns a rank whose link broke, rank 0 first; None while all hold."""
        return next((r for r, w in sorted(self._watches.items()) if w.is_lost()), None)

    def shares_memory_with(self, rank: int) -> bool:
        """Returns whether messages to a rank go through shared memory."""
        ring = self._rings.get(rank)
        return ring is not None and ring.has_reader

    def close(self) -> None:
        self._receiver.close()
        if self._connections is not None:
            self._connections.close()
            self._connections = None
        for watch in self._watches.values():
            watch.close()
        for out in self._outs.values():
            out.close()
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._ring_readers.clear()
        if self._inbox is not None:
            self._inbox.close()
        self._watches.clear()
        self._outs.clear()
        self._inbox = None

    def _receive(self) -> None:
        try:
            frames = self._receiver.receive(self.inbox)
        except zmq.Again:
            self._look_around()
        else:
            self.keep(frames)

    def drain(self) -> None:
        """Files what has come and drops what strangers sent, up to MAX_DRAINED messages. A rank
        that does not compute calls it now and then: nothing else bounds its inbox."""
        for _ in range(MAX_DRAINED):
            frames = self._receiver.look(self.inbox, n_looks=1)
            if frames is None:
                return
            self.keep(frames)

    def _look_around(self) -> None:
        if self.watch is not None:
            self.watch()
        self.check()

    def check(self) -> None:
        """Raises PeerLost if a link broke."""
        lost = self.lost_rank()
        if lost is not None:
            self.drain()  # what it still sent is not needed, but its inbox should not block it
            raise self._loss(lost, "closed its link to {}, or did not answer on it for seconds")
        if self._connections is not None and (found := self._connections.broken()) is not None:
            rank, why = found
            raise self._loss(rank, f"has lost its direct connection to {{}}: {why}")

    def _loss(self, rank: int, what: str) -> PeerLost:
        host, own = self.hosts[rank], f"rank {self.rank}"
        return PeerLost(f"rank {rank} at {host} {what.format(own)}", rank=rank, host=host)

    def keep(self, frames: Sequence[bytes]) -> None:
        """Files a message, and drops those of strangers, who do not know the epoch. Raises
        ProtocolError for what no rank of this session sends."""
        message = frames[0]
        if message == WAKE_UP and len(frames) == 1:
            self._look_around_in_time()
            return
        if len(frames) != 1 or len(message) < HEADER_BYTES:
            self._drop()
            return
        magic, phase, rank, block, epoch, sequence, compute = HEADER.unpack_from(message)
        if magic != MAGIC or epoch != self.epoch:
            self._drop()
            return
        self._useless_since = None
        self.counters[places.RECEIVED_BYTES] += len(message)
        arrived = Arrived(memoryview(message)[HEADER_BYTES:], compute)
        self._filing.keep(Key(sequence, phase, block, rank), arrived)

    def _drop(self) -> None:
        """Counts a stranger's message."""
        now = time.monotonic()
        if self._repeats.is_first("a stranger", "a message on the mesh inbox", now):
            log.warning("dropped a message on the mesh inbox that no rank of this session sent")
        for line in self._repeats.due(now):
            log.warning("%s", line)
        self._look_around_in_time()

    def _look_around_in_time(self) -> None:
        """Calls `_look_around` now and then while only messages come that bring nothing."""
        now = time.monotonic()
        if self._useless_since is None:
            self._useless_since = now
        elif now - self._useless_since >= SLICE_MS / 1e3:
            self._useless_since = now
            self._look_around()
