"""The way of two ranks to TCP connections of their own, a line and a stream (cluster/mesh/line.py,
stream.py), once they have greeted each other by ZeroMQ.

Each offers them to each other: the lower rank names a port, both a ticket and a key for each
connection; these travel by ZeroMQ, encrypted where links are. The higher rank connects and shows
the ticket that it was given, the lower one answers with the other's. Then each tells the other
whether its ends stand, and what does not stand at both ends is not used. Nothing listens any more
after that.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from cluster.mesh.libraries import CIPHERS, has_functions, load_library, sealings
from cluster.mesh.offer import KINDS, Offer
from cluster.mesh.sealing import Keys
from cluster.mesh.tickets import Door, connect_with
from cluster.sockets import Address, parse_address
from dllama.errors import ProtocolError
from kernels.team import HAS_FUTEX

log = logging.getLogger(__name__)

CONNECT_S = 1.5  # to all lower ranks, of machines that greeted each other already
LEAST_S = 0.2  # to each of them, where others took all of that
WITHIN_S = 3.0  # for all higher ranks to connect
LINE = 0  # of the kinds
_NO_OFFER = b""

Way = tuple[int, int]  # a rank, and the kind of a connection to it


class Met(NamedTuple):
    """The connected sockets to one rank, and what they are sealed with; None: nothing."""

    sockets: tuple[socket.socket, ...]
    keys: tuple[Keys | None, ...]

    def close(self) -> None:
        for each in self.sockets:
            each.close()


class Messenger(Protocol):
    """A rank's way to talk to the others meanwhile: by ZeroMQ."""

    rank: int
    peers: Sequence[str]
    hosts: Sequence[str]
    watch: Callable[[], None] | None

    def tell(self, rank: int, block: int, payload: bytes) -> None: ...

    def hear(self, rank: int, block: int) -> memoryview: ...


def uses_connections() -> bool:
    """Returns whether ranks may have connections of their own: DLLAMA_LINES=0 keeps all on
    ZeroMQ."""
    library = load_library()
    is_asked = os.environ.get("DLLAMA_LINES", "1") != "0"
    is_there = library is not None and has_functions(library, ["zmq_poll"])
    return is_asked and is_there and HAS_FUTEX and hasattr(os, "eventfd")


def meet(
    messenger: Messenger, wanted: Sequence[int], others: Sequence[int], host: str,
    ports: Iterable[int], *, is_encrypted: bool,
) -> dict[int, Met]:  # fmt: skip
    """Returns the connections to those of the other ranks that want them too, and of `wanted`;
    every rank calls it. The lower one of two listens on the first free port of a host. Raises
    PeerLost, ProtocolError, and what `watch` raises."""
    meeting = _Meeting(messenger, is_encrypted)
    try:
        meeting.offer(wanted, others, host, ports)
        meeting.connect()
        return meeting.agree()
    finally:
        meeting.close()


class _Meeting:
    def __init__(self, messenger: Messenger, is_encrypted: bool) -> None:
        self._messenger, self._is_encrypted = messenger, is_encrypted
        self._door: Door | None = None
        self._own: dict[int, Offer] = {}
        self._theirs: dict[int, Offer] = {}
        self._made: dict[Way, socket.socket] = {}
        self._why: dict[int, str] = {}

    def offer(
        self, wanted: Sequence[int], others: Sequence[int], host: str, ports: Iterable[int]
    ) -> None:
        """Tells each other rank an offer or none, and hears theirs."""
        ciphers, own = _own_ciphers() if self._is_encrypted else 0, self._messenger.rank
        why = ""
        if self._is_encrypted and not ciphers:
            why = "libzmq here was made without a libsodium that has ciphers for them"
        elif wanted and max(wanted) > own:
            try:
                self._door = Door(host, ports)
            except OSError as error:
                why = str(error)
        for rank in others:
            is_possible = not why or (rank < own and (ciphers or not self._is_encrypted))
            if rank in wanted and is_possible:
                port = self._door.port if self._door is not None and rank > own else 0
                self._own[rank] = Offer.new(port, ciphers)
            offer = self._own.get(rank)
            self._messenger.tell(rank, 0, offer.pack() if offer else _NO_OFFER)
        for rank in others:
            heard = Offer.unpack(self._messenger.hear(rank, 0))
            if heard is not None and rank in self._own:
                self._theirs[rank] = heard
            elif heard is not None and rank in wanted:
                self._warn(rank, why)

    def connect(self) -> None:
        """Connects to lower ranks, then lets the higher ones in. No rank waits for a higher one
        before it has answered, so that none waits in a circle."""
        own, end = self._messenger.rank, time.monotonic() + CONNECT_S
        for rank in sorted(r for r in self._theirs if r < own):
            until = max(end, time.monotonic() + LEAST_S)
            try:
                for kind in range(KINDS):
                    self._made[rank, kind] = self._connected(rank, kind, until)
            except OSError as error:
                self._why[rank] = str(error) or type(error).__name__
        ways = {
            self._own[rank].tickets[kind]: (rank, kind)
            for rank in self._theirs
            if rank > own
            for kind in range(KINDS)
        }
        if not ways or self._door is None:
            return
        answers = {shown: self._theirs[r].tickets[kind] for shown, (r, kind) in ways.items()}
        lines = {shown for shown, (_, kind) in ways.items() if kind == LINE}
        until, watch = time.monotonic() + WITHIN_S, self._messenger.watch
        for shown, connection in self._door.let_in(answers, lines, until, watch):
            self._made[ways[shown]] = connection
        for way in ways.values():
            if way not in self._made:
                self._why[way[0]] = f"it did not connect within {WITHIN_S:g} s"

    def agree(self) -> dict[int, Met]:
        """Returns the connections that stand at both ends."""
        whole = {
            rank: all((rank, kind) in self._made for kind in range(KINDS)) for rank in self._theirs
        }
        for rank, is_whole in whole.items():
            self._messenger.tell(rank, 1, bytes([is_whole]))
        stand = {rank: bytes(self._messenger.hear(rank, 1)) == b"\x01" for rank in whole}
        keys = {rank: self._keys(rank) for rank in whole}
        found = {}
        for rank, is_whole in whole.items():
            if is_whole and stand[rank]:
                sockets = tuple(self._made.pop((rank, kind)) for kind in range(KINDS))
                found[rank] = Met(sockets, keys[rank])
            else:
                self._warn(rank, self._why.get(rank, "the other end does not stand"))
        return found

    def close(self) -> None:
        """Closes what is of no use."""
        if self._door is not None:
            self._door.close()
        for each in self._made.values():
            each.close()

    def _warn(self, rank: int, why: str) -> None:
        log.warning(
            "sums with rank %d at %s go by ZeroMQ, which is slower, as there is no direct "
            "connection: %s; open the session ports of both hosts for one another",
            rank, self._messenger.hosts[rank], why,
        )  # fmt: skip

    def _connected(self, rank: int, kind: int, until: float) -> socket.socket:
        own, theirs = self._own[rank], self._theirs[rank]
        host = parse_address(self._messenger.peers[rank].removeprefix("tcp://")).host
        address = Address(host, theirs.port)
        tickets = theirs.tickets[kind], own.tickets[kind]
        return connect_with(address, *tickets, until, is_line=kind == LINE)

    def _keys(self, rank: int) -> tuple[Keys | None, ...]:
        own, theirs = self._own[rank], self._theirs[rank]
        if not self._is_encrypted:
            return (None,) * KINDS
        number = (own.ciphers & theirs.ciphers).bit_length() - 1
        sealing = sealings()[number] if number >= 0 else None
        if sealing is None:
            raise ProtocolError(
                f"rank {rank} offers connections with ciphers {theirs.ciphers:#x}, of which rank "
                f"{self._messenger.rank} knows none; install the same dllama on every node"
            )
        return tuple(Keys(sealing, *both) for both in zip(own.keys, theirs.keys, strict=True))


def _own_ciphers() -> int:
    return sum(1 << i for i in range(len(CIPHERS)) if sealings()[i] is not None)
