"""Pieces of weights from worker to worker: each rank answers for its store, and asks those of the
others before it asks the root, whose link is the narrow place where many load at once.

It pays after a new plan, when pieces move between workers. Whatever does not come from another
worker, or is not what its name says, comes from the root.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import zmq

from cluster.security.epoch_links import SessionLinks
from cluster.security.links import STORE
from cluster.sockets import Context, Socket, bind_first_free, make_socket
from cluster.weights.keeping import is_named
from cluster.weights.store import WeightStore
from cluster.wire.codec import epoch_of
from cluster.wire.store_messages import (
    Fetch,
    Fetched,
    Holds,
    Seek,
    StoreMessage,
    pack,
    unpack,
)
from dllama.errors import ProtocolError

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 << 20
SEEK_S = 1.0  # who has not said by then what it holds is not asked for it
FETCH_S = 5.0  # without a piece; then the root is asked
AHEAD = 4  # pieces that are asked of each rank before they are needed
POLL_MS = 50


class PieceServer:
    """Answers other ranks of one epoch for a store, in a thread of its own."""

    def __init__(self, context: Context, host: str, epoch: int, store: WeightStore) -> None:
        self._host, self._epoch, self._store = host, epoch, store
        self._socket: Socket = make_socket(
            context, zmq.ROUTER, host=host, max_message_bytes=MAX_MESSAGE_BYTES
        )
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def bind(self, ports: Iterable[int], security: SessionLinks) -> int:
        """Listens on the first free port and returns it; `security` admits the other ranks. Raises
        ConfigError."""
        security.listen(self._socket, STORE)
        return bind_first_free(self._socket, self._host, ports)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="weights-serve", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_closing:
            if not self._socket.poll(POLL_MS):
                continue
            identity, *frames = self._socket.recv_multipart()
            if epoch_of(frames) != self._epoch:
                continue  # a stranger
            try:
                answer = self._answer(unpack(frames)[1])
                self._socket.send_multipart([identity, *pack(answer, self._epoch)], zmq.NOBLOCK)
            except (ProtocolError, zmq.ZMQError) as error:
                log.warning("a rank that asked for weights got no answer: %s", error)

    def _answer(self, message: StoreMessage) -> StoreMessage:
        if isinstance(message, Seek):
            names = [digest.tobytes().hex() for digest in message.digests]
            held = [number for number, name in enumerate(names) if self._store.has(name)]
            return Holds(np.array(held, np.int32))
        if isinstance(message, Fetch):
            data = self._store.read(message.digest.tobytes().hex())
            return Fetched(message.number, np.frombuffer(data or b"", np.uint8))
        raise ProtocolError(f"a rank sent {type(message).__name__} to another one's store")

    def close(self) -> None:
        self._is_closing = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()


class PeerPieces:
    """The stores of the other workers, as one rank asks them. `beat` is called while it waits."""

    def __init__(self, context: Context, epoch: int, beat: Callable[[], None]) -> None:
        self._context, self._epoch, self._beat = context, epoch, beat
        self._sockets: dict[int, Socket] = {}  # by rank
        self._names: list[str] = []
        self._sizes: Sequence[int] = ()
        self._holders: dict[int, int] = {}  # the rank that a piece is asked of
        self._queues: dict[int, deque[int]] = {}  # what is to be asked of each rank, in order
        self._asked: dict[int, set[int]] = {}
        self._arrived: dict[int, np.ndarray] = {}

    def connect(
        self, own_rank: int, endpoints: Sequence[str], keys: Sequence[str],
        security: SessionLinks,
    ) -> None:  # fmt: skip
        """Opens links to all workers but this one; `endpoints` and `keys` are by rank."""
        for rank in range(1, len(endpoints)):
            if rank == own_rank:
                continue
            host = endpoints[rank].removeprefix("tcp://").rpartition(":")[0]
            link = make_socket(
                self._context, zmq.DEALER, host=host, max_message_bytes=MAX_MESSAGE_BYTES
            )
            link.setsockopt(zmq.IMMEDIATE, 0)  # the first words wait for the connection
            security.connect(link, keys[rank] if keys else "")
            link.connect(endpoints[rank])
            self._sockets[rank] = link

    def locate(
        self, names: list[str], sizes: Sequence[int], wanted: Sequence[int]
    ) -> frozenset[int]:
        """Asks who holds which of the wanted pieces; returns those that somebody does."""
        self._names, self._sizes = names, sizes
        if not wanted or not self._sockets:
            return frozenset()
        digests = np.frombuffer(bytes.fromhex("".join(names[n] for n in wanted)), np.uint8)
        for rank in list(self._sockets):
            self._send(rank, Seek(digests.reshape(len(wanted), -1)))
        found: dict[int, set[int]] = {}
        deadline = time.monotonic() + SEEK_S
        while len(found) < len(self._sockets) and time.monotonic() < deadline:
            for rank, message in self._receive():
                if isinstance(message, Holds):
                    held = [n for n in message.pieces.tolist() if 0 <= n < len(wanted)]
                    found[rank] = {wanted[n] for n in held}
        self._share_out(found, wanted)
        return frozenset(self._holders)

    def _share_out(self, found: dict[int, set[int]], wanted: Sequence[int]) -> None:
        """Asks each piece of the holder that has the fewest bytes to send so far."""
        load = dict.fromkeys(found, 0)
        self._queues = {rank: deque() for rank in found}
        self._asked = {rank: set() for rank in found}
        for number in wanted:
            holders = [rank for rank in sorted(found) if number in found[rank]]
            if holders:
                rank = min(holders, key=load.__getitem__)
                load[rank] += self._sizes[number]
                self._holders[number] = rank
                self._queues[rank].append(number)

    def take(self, number: int) -> np.ndarray | None:
        """Returns a located piece, uint8 (n,); None where its holder does not send it."""
        rank = self._holders.pop(number)
        deadline = time.monotonic() + FETCH_S
        while number not in self._arrived:
            if rank not in self._sockets:
                return None
            self._ask(rank)
            if self._take_in():
                deadline = time.monotonic() + FETCH_S
            elif time.monotonic() > deadline:
                self._give_up(rank, "sends no weights")
        data = self._arrived.pop(number)
        if not is_named(self._names[number], data):
            return None  # it is gone there, or damaged
        return data

    def _ask(self, rank: int) -> None:
        queue, asked = self._queues[rank], self._asked[rank]
        while queue and len(asked) < AHEAD and rank in self._sockets:
            number = queue.popleft()
            asked.add(number)
            digest = np.frombuffer(bytes.fromhex(self._names[number]), np.uint8)
            self._send(rank, Fetch(number, digest))

    def _take_in(self) -> bool:
        """Files the pieces that have come; returns whether there were any."""
        came = False
        for rank, message in self._receive():
            if isinstance(message, Holds):
                continue  # it came too late
            if not isinstance(message, Fetched) or message.number not in self._asked.get(rank, ()):
                self._give_up(rank, "sends what it was not asked for")
                continue
            self._asked[rank].remove(message.number)
            self._arrived[message.number] = message.data
            came = True
            self._ask(rank)
        return came

    def _receive(self) -> list[tuple[int, StoreMessage]]:
        """Waits a moment; returns what has come, with the rank that sent it."""
        poller = zmq.Poller()
        for link in self._sockets.values():
            poller.register(link, zmq.POLLIN)
        ready = dict(poller.poll(POLL_MS)) if self._sockets else {}
        if not ready:
            self._beat()
        came: list[tuple[int, StoreMessage]] = []
        for rank, link in list(self._sockets.items()):
            if link in ready:
                try:
                    came.append((rank, unpack(link.recv_multipart(zmq.NOBLOCK))[1]))
                except (ProtocolError, zmq.Again) as error:
                    self._give_up(rank, f"sends nonsense ({error})")
        return came

    def _send(self, rank: int, message: StoreMessage) -> None:
        try:
            self._sockets[rank].send_multipart(pack(message, self._epoch), zmq.NOBLOCK)
        except zmq.Again:
            self._give_up(rank, "takes no questions")

    def _give_up(self, rank: int, why: str) -> None:
        """Asks a rank nothing more: its pieces come from the root."""
        link = self._sockets.pop(rank, None)
        if link is not None:
            log.warning("rank %d %s; the root is asked for them", rank, why)
            link.close()

    def close(self) -> None:
        for link in self._sockets.values():
            link.close()
        self._sockets.clear()
