"""TCP connections whose two ends show each other tickets: whoever shows none of ours is closed.
Knows sockets and tickets, not ranks."""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from cluster.mesh.offer import TICKET_BYTES
from cluster.sockets import SLICE_MS, Address

MAX_STRANGERS = 64  # connections that have shown no ticket yet
LINE_BUFFER_BYTES = 1 << 20  # of the system, each way: a message is to fit; it gives what it allows
USER_TIMEOUT_MS = 120_000  # after which what is not acknowledged breaks a connection


def prepare(connection: socket.socket, *, is_line: bool) -> None:
    """Sets the options of a connection. Packets pass on an idle one, too: firewalls and routers
    forget connections that are silent, and then drop what comes."""
    options = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 6),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ]
    if is_line:  # the system fits a stream's buffers to its way
        options += [
            (socket.SOL_SOCKET, name, LINE_BUFFER_BYTES) for name in ("SO_SNDBUF", "SO_RCVBUF")
        ]
    for level, name, value in options:
        with suppress(AttributeError):  # some systems do not have it
            connection.setsockopt(level, getattr(socket, name), value)


def connect_with(
    address: Address, shown: bytes, expected: bytes, until: float, *, is_line: bool
) -> socket.socket:
    """Returns a connection to an address where a ticket was shown and the expected one came back,
    before the clock (time.monotonic) says `until`. Raises OSError."""
    # Names are IPv4 here as they are to ZeroMQ's sockets: only a written IPv6 address is one.
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare(made, is_line=is_line)
        made.settimeout(max(0.1, until - time.monotonic()))
        made.connect(found[0][4])
        made.sendall(shown)
        came = b""
        while len(came) < TICKET_BYTES:
            made.settimeout(max(0.1, until - time.monotonic()))
            more = made.recv(TICKET_BYTES - len(came))
            if not more:
                raise ConnectionError("the other end closed it")
            came += more
        if not secrets.compare_digest(came, expected):
            raise ConnectionError("somebody else answered there")
    except BaseException:
        made.close()
        raise
    return made


class Door:
    """A port where others connect and show tickets."""

    def __init__(self, host: str, ports: Iterable[int]) -> None:
        """Listens on the first free port. Raises OSError where there is none."""
        self._listener = _listening(host, ports)
        self._strangers: dict[int, tuple[socket.socket, bytes]] = {}

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def let_in(
        self, tickets: Mapping[bytes, bytes], lines: set[bytes], until: float,
        watch: Callable[[], None] | None,
    ) -> Iterator[tuple[bytes, socket.socket]]:  # fmt: skip
        """Yields each ticket that was shown, with its connection, until all were or time is up.
        `tickets` are those that are expected, with the one that is shown in return, and `lines`
        those of lines. Calls `watch` about four times a second; raises what it raises."""
        left = dict(tickets)
        while left and time.monotonic() < until:
            if watch is not None:
                watch()
            poll = select.poll()
            for number in (self._listener.fileno(), *self._strangers):
                poll.register(number, select.POLLIN)
            for number, _ in poll.poll(SLICE_MS):
                if number == self._listener.fileno():
                    self._accept()
                elif number in self._strangers and (shown := self._ticket_of(number)):
                    found = next((t for t in left if secrets.compare_digest(t, shown)), None)
                    stranger, _ = self._strangers.pop(number)
                    if found is None:
                        stranger.close()
                        continue
                    with suppress(OSError):
                        prepare(stranger, is_line=found in lines)
                        stranger.sendall(left[found])
                    del left[found]
                    yield found, stranger

    def close(self) -> None:
        """Closes the port and all that have shown no ticket."""
        for stranger, _ in self._strangers.values():
            stranger.close()
        self._strangers.clear()
        self._listener.close()

    def _ticket_of(self, number: int) -> bytes:
        """Reads on; returns the ticket once it is whole. One that leaves before is closed."""
        stranger, shown = self._strangers[number]
        try:
            more = stranger.recv(TICKET_BYTES - len(shown))
        except OSError:
            more = b""
        if not more:
            self._strangers.pop(number)[0].close()
            return b""
        self._strangers[number] = stranger, shown + more
        return shown + more if len(shown + more) == TICKET_BYTES else b""

    def _accept(self) -> None:
        try:
            made, _ = self._listener.accept()
        except OSError:  # it has left again, or there is no file descriptor for it
            time.sleep(0.01)
            return
        made.setblocking(False)
        if len(self._strangers) >= MAX_STRANGERS:  # the oldest makes room
            self._strangers.pop(next(iter(self._strangers)))[0].close()
        self._strangers[made.fileno()] = made, b""


def _listening(host: str, ports: Iterable[int]) -> socket.socket:
    """Returns a socket that listens on the first free port. Raises OSError."""
    is_ipv6, refused = ":" in host, OSError("no port was given")
    for port in ports:
        made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            prepare(made, is_line=True)  # a receive buffer counts from the first packet on
            made.bind((host, port))
            made.listen(MAX_STRANGERS)
            made.setblocking(False)
            return made
        except (OSError, OverflowError) as error:
            made.close()
            refused = OSError(f"cannot listen on port {port}: {error}")
    raise refused
