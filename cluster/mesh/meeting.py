"""How two ranks come to TCP connections of their own, a line and a stream (cluster/mesh/line.py,
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
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from cluster.mesh.libraries import CIPHERS, has_functions, load_library, sealings
from cluster.mesh.sealing import Keys
from cluster.sockets import SLICE_MS, parse_address
from dllama.errors import ProtocolError
from kernels.team import HAS_FUTEX

log = logging.getLogger(__name__)

WITHIN_S = 4.0  # all connections of a rank, of machines that greeted each other already
CONNECT_S = 2.0
TICKET_BYTES, KEY_BYTES = 16, 32
BUFFER_BYTES = 1 << 20  # of the system, each way; it gives what it allows
MAX_STRANGERS = 64  # connections that have shown no ticket yet
KINDS = 2  # connections of two ranks: a line, a stream
_OFFER = struct.Struct("<HB" + f"{TICKET_BYTES}s{KEY_BYTES}s" * KINDS)
OFFER_BYTES = _OFFER.size
NO_OFFER = b""

Way = tuple[int, int]  # a rank, and which of the connections to it


class Offer(NamedTuple):
    """What a rank offers another: the port that it listens on (0 of the higher rank), the ciphers
    that it can use as bits (0: nothing is sealed), and for each connection the other's ticket and
    the key that it seals with."""

    port: int
    ciphers: int
    tickets: tuple[bytes, ...]
    keys: tuple[bytes, ...]

    @classmethod
    def new(cls, port: int, ciphers: int) -> Offer:
        made = [secrets.token_bytes(TICKET_BYTES) for _ in range(KINDS)]
        keys = [secrets.token_bytes(KEY_BYTES) if ciphers else bytes(KEY_BYTES) for _ in made]
        return cls(port, ciphers, tuple(made), tuple(keys))

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> Offer | None:
        """Returns None where nothing is offered. Raises ProtocolError."""
        if not len(payload):
            return None
        if len(payload) != OFFER_BYTES:
            raise ProtocolError(
                f"an offer of connections has {len(payload)} bytes, expected {OFFER_BYTES}; "
                "install the same dllama on every node"
            )
        port, ciphers, *pairs = _OFFER.unpack(payload)
        return cls(port, ciphers, tuple(pairs[::2]), tuple(pairs[1::2]))

    def pack(self) -> bytes:
        pairs = [each for pair in zip(self.tickets, self.keys, strict=True) for each in pair]
        return _OFFER.pack(self.port, self.ciphers, *pairs)


class Met(NamedTuple):
    """The connected sockets to one rank, and what they are sealed with; None: nothing."""

    sockets: tuple[socket.socket, ...]
    keys: tuple[Keys | None, ...]


class Talks(Protocol):
    """How a rank talks to the others meanwhile: by ZeroMQ."""

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
    return is_asked and is_there and HAS_FUTEX


def meet(
    talks: Talks, wanted: Sequence[int], others: Sequence[int], host: str, ports: Iterable[int], *,
    is_encrypted: bool,
) -> dict[int, Met]:  # fmt: skip
    """Returns the connections to those of the other ranks that want them too, and of `wanted`;
    every rank calls it. The lower one of two listens on the first free port of a host. Raises
    PeerLost, ProtocolError, and what `watch` raises."""
    meeting = _Meeting(talks, is_encrypted)
    try:
        meeting.offer(wanted, others, host, ports)
        meeting.connect()
        return meeting.agree()
    finally:
        meeting.close()


class _Meeting:
    def __init__(self, talks: Talks, is_encrypted: bool) -> None:
        self._talks, self._is_encrypted = talks, is_encrypted
        self._listener: socket.socket | None = None
        self._own: dict[int, Offer] = {}
        self._theirs: dict[int, Offer] = {}
        self._made: dict[Way, socket.socket] = {}
        self._why: dict[int, str] = {}

    def offer(
        self, wanted: Sequence[int], others: Sequence[int], host: str, ports: Iterable[int]
    ) -> None:
        """Tells each other rank an offer or none, and hears theirs."""
        ciphers, own = _own_ciphers() if self._is_encrypted else 0, self._talks.rank
        port = 0
        if wanted and max(wanted) > own:
            self._listener = _listen(host, ports)
            port = self._listener.getsockname()[1] if self._listener else 0
        for rank in others:
            is_possible = rank in wanted and (port or rank < own)
            if is_possible and (ciphers or not self._is_encrypted):
                self._own[rank] = Offer.new(port if rank > own else 0, ciphers)
            offer = self._own.get(rank)
            self._talks.tell(rank, 0, offer.pack() if offer else NO_OFFER)
        for rank in others:
            heard = Offer.unpack(self._talks.hear(rank, 0))
            if heard is not None and rank in self._own:
                self._theirs[rank] = heard

    def connect(self) -> None:
        """Connects to lower ranks, then lets the higher ones in. No rank waits for a higher one
        before it has answered, so that none waits in a circle."""
        until, own = time.monotonic() + WITHIN_S, self._talks.rank
        for rank in sorted(self._theirs):
            if rank > own:
                continue
            try:
                for kind in range(KINDS):
                    self._made[rank, kind] = self._connected(rank, kind, until)
            except OSError as error:
                self._why[rank] = str(error) or type(error).__name__
        waited = {(rank, kind) for rank in self._theirs if rank > own for kind in range(KINDS)}
        if waited and self._listener is not None:
            self._let_in(self._listener, waited, until)

    def agree(self) -> dict[int, Met]:
        """Returns the connections that stand at both ends."""
        whole = {
            rank: all((rank, kind) in self._made for kind in range(KINDS)) for rank in self._theirs
        }
        for rank, is_whole in whole.items():
            self._talks.tell(rank, 1, bytes([is_whole]))
        found = {}
        for rank, is_whole in whole.items():
            is_there = bytes(self._talks.hear(rank, 1)) == b"\x01"
            if is_there and is_whole:
                sockets = tuple(self._made.pop((rank, kind)) for kind in range(KINDS))
                found[rank] = Met(sockets, self._keys(rank))
            else:
                why = self._why.get(rank, "the other end does not stand")
                log.warning(
                    "sums with rank %d at %s take the longer way by ZeroMQ, as there is no direct "
                    "connection: %s; open the session ports of both hosts for one another",
                    rank, self._talks.hosts[rank], why,
                )  # fmt: skip
        return found

    def close(self) -> None:
        """Closes what is of no use."""
        if self._listener is not None:
            self._listener.close()
        for each in self._made.values():
            each.close()

    def _keys(self, rank: int) -> tuple[Keys | None, ...]:
        own, theirs = self._own[rank], self._theirs[rank]
        if not self._is_encrypted:
            return (None,) * KINDS
        number = (own.ciphers & theirs.ciphers).bit_length() - 1
        sealing = sealings()[number] if number >= 0 else None
        if sealing is None:
            raise ProtocolError(
                f"rank {rank} offers connections with ciphers {theirs.ciphers:#x}, of which rank "
                f"{self._talks.rank} knows none; install the same dllama on every node"
            )
        return tuple(Keys(sealing, *both) for both in zip(own.keys, theirs.keys, strict=True))

    def _connected(self, rank: int, kind: int, until: float) -> socket.socket:
        """Returns a connection whose other end has shown its ticket. Raises OSError."""
        host = parse_address(self._talks.peers[rank].removeprefix("tcp://")).host
        offer = self._theirs[rank]
        left_s = min(CONNECT_S, max(0.1, until - time.monotonic()))
        made = socket.create_connection((host, offer.port), left_s)
        try:
            _prepare(made)
            made.sendall(offer.tickets[kind])
            made.settimeout(max(0.1, until - time.monotonic()))
            shown = b""
            while len(shown) < TICKET_BYTES:
                more = made.recv(TICKET_BYTES - len(shown))
                if not more:
                    raise ConnectionError("the other end closed it")
                shown += more
            if not secrets.compare_digest(shown, self._own[rank].tickets[kind]):
                raise ConnectionError("somebody else answered there")
        except BaseException:
            made.close()
            raise
        return made

    def _let_in(self, listener: socket.socket, waited: set[Way], until: float) -> None:
        """Accepts connections until all these have shown their tickets, or time is up."""
        strangers: dict[int, tuple[socket.socket, bytes]] = {}
        try:
            while waited and time.monotonic() < until:
                if self._talks.watch is not None:
                    self._talks.watch()
                ready = select.select(
                    [listener, *(s for s, _ in strangers.values())], [], [], SLICE_MS / 1e3
                )[0]
                for each in ready:
                    if each is listener:
                        _accept(listener, strangers)
                    elif each.fileno() in strangers:
                        self._read_ticket(each, strangers, waited)
        finally:
            for stranger, _ in strangers.values():
                stranger.close()
        for rank, _ in waited:
            self._why[rank] = f"it did not connect within {WITHIN_S:g} s"

    def _read_ticket(
        self, stranger: socket.socket, strangers: dict[int, tuple[socket.socket, bytes]],
        waited: set[Way],
    ) -> None:  # fmt: skip
        """Reads on of a connection's ticket; it is closed if it shows none of ours."""
        number = stranger.fileno()
        shown = strangers[number][1]
        try:
            more = stranger.recv(TICKET_BYTES - len(shown))
        except OSError:
            more = b""
        shown += more
        if more and len(shown) < TICKET_BYTES:
            strangers[number] = stranger, shown
            return
        del strangers[number]
        for rank, kind in waited:
            if secrets.compare_digest(self._own[rank].tickets[kind], shown):
                self._made[rank, kind] = stranger
                waited.discard((rank, kind))
                with suppress(OSError):
                    stranger.sendall(self._theirs[rank].tickets[kind])
                return
        stranger.close()


def _own_ciphers() -> int:
    return sum(1 << i for i in range(len(CIPHERS)) if sealings()[i] is not None)


def _prepare(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, which, BUFFER_BYTES)


def _listen(host: str, ports: Iterable[int]) -> socket.socket | None:
    """Returns a socket that listens on the first free port; None where there is none."""
    is_ipv6 = ":" in host
    for port in ports:
        made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((host, port))
            made.listen(MAX_STRANGERS)
            made.setblocking(False)
            return made
        except (OSError, OverflowError):
            made.close()
    return None


def _accept(listener: socket.socket, strangers: dict[int, tuple[socket.socket, bytes]]) -> None:
    with suppress(OSError):
        made, _ = listener.accept()
        if len(strangers) >= MAX_STRANGERS:  # the oldest makes room
            oldest = next(iter(strangers))
            strangers.pop(oldest)[0].close()
        made.setblocking(False)
        _prepare(made)
        strangers[made.fileno()] = made, b""
