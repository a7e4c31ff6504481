"""Listens on a port that strangers can reach, and passes what they say on to a ZeroMQ socket of
this process, a few messages each and turn.

ZeroMQ takes in whatever comes, at once. Here a peer that is too fast is read no further, so that it
waits; one that breaks the rules of ZMTP, or that no root would be, is closed. Memory is bounded by
the number of connections, and none of them delays another by more than a turn.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from cluster.front.budget import Budget
from cluster.front.connection import READ, Connection, PeerLeft
from cluster.front.frame_meter import FrameMeter
from cluster.front.guests import GuestLimits, Guests
from cluster.front.listener import listen
from cluster.repeats import Repeats
from dllama.errors import ProtocolError
from dllama.host.descriptors import EXHAUSTED, n_free

log = logging.getLogger(__name__)

TURN_S = 0.1
MAX_ACCEPTED = 32  # connections let in within a turn
HANDSHAKE_S = 5.0  # for a peer's greeting and first command
STRANGERS_PER_S = 1_000.0  # messages of all strangers together
PER_S, BURST = 20.0, 64.0  # of one stranger
TRUSTED_PER_S, TRUSTED_BURST = 200.0, 1_000.0  # of one that belongs to a root
MAX_OFFENCES = 16  # messages that no root sends, of one connection
FREE_DESCRIPTORS = 16  # that are left to the daemon: it starts processes
LISTENER = 0  # no connection has this number


class Front:
    """The front of one port. `target` is the name of an abstract unix socket, or the path of one,
    on which a ZeroMQ socket of this process listens. One thread of its own, which close() ends.

    `is_sealed`: what passes is encrypted. `numbers` are those of connections, which two fronts may
    share.
    """

    def __init__(
        self,
        target: str,
        max_message_bytes: int,
        limits: GuestLimits | None = None,
        *,
        numbers: Iterator[int] | None = None,
        is_sealed: bool = False,
    ) -> None:
        self._target = target
        self._max_message_bytes = max_message_bytes
        self._guests = Guests(limits or GuestLimits())
        self._connections: dict[int, Connection] = {}
        self._numbers = numbers or itertools.count(1)
        self._is_sealed = is_sealed
        self._selector = selectors.DefaultSelector()
        self._asked: deque[Callable[[], None]] = deque()  # by the other thread
        self._strangers = Budget(STRANGERS_PER_S, STRANGERS_PER_S, time.monotonic())
        self._repeats = Repeats()
        self._name = f"dllama-front-{secrets.token_hex(8)}"
        self._is_running = False
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)

    def start(self, host: str, ports: Iterable[int]) -> int:
        """Listens on the first free port and returns it. Raises ConfigError."""
        self._listener = listen(host, ports)
        self._selector.register(self._listener, READ, LISTENER)
        self._is_running = True
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        if self._is_running:
            self._is_running = False
            self._thread.join()
        for number in list(self._connections):
            self._end(number)
        self._selector.close()
        if self._listener is not None:
            self._listener.close()

    # ---- for the thread that reads the socket behind
    def number_of(self, descriptor: int) -> int:
        """Returns the number of the connection that leads to a descriptor of the socket behind
        (zmq.SRCFD of a message); 0 where it has gone."""
        try:
            copy = os.dup(descriptor)
        except OSError:
            return 0
        try:
            end = socket.socket(fileno=copy)
        except OSError:  # it is another thing by now, which keeps the copy if nobody closes that
            os.close(copy)
            return 0
        with end:
            try:
                name = end.getpeername()
            except OSError:
                return 0
        own, _, number = (name.decode() if isinstance(name, bytes) else str(name)).rpartition(":")
        return int(number) if own.endswith(self._name) and number.isdigit() else 0

    def address_of(self, number: int) -> str:
        """Returns the host that a connection comes from; "" where it has gone."""
        connection = self._connections.get(number)
        return "" if connection is None else connection.address

    def trust(self, numbers: frozenset[int]) -> None:
        """Says which connections belong to roots that have sessions: they get more than others,
        and make room for nobody."""
        self._asked.append(lambda: self._trust(numbers))

    def consumed(self, number: int) -> None:
        """Says that a message of a connection was read: another one may come."""
        connection = self._connections.get(number)
        if connection is not None:
            connection.n_consumed += 1

    def offended(self, number: int, what: str) -> None:
        """Says that a peer sent what no root sends; once it has done so often it is closed."""
        self._asked.append(lambda: self._offend(number, what))

    # ---- the front's own thread
    def _run(self) -> None:
        while self._is_running:
            try:
                self._turn()
            except Exception:
                log.exception("a turn of the front failed")
                time.sleep(TURN_S)

    def _turn(self) -> None:
        now = time.monotonic()
        while self._asked:
            self._asked.popleft()()
        self._arm(now)
        ready = {key.data for key, _ in self._selector.select(self._until_next(now))}
        if LISTENER in ready:
            self._accept()
        now = time.monotonic()
        served = [self._connections[n] for n in ready if n in self._connections]
        for connection in sorted(served, key=lambda c: c.served_at):
            self._serve(connection, now)
        for line in self._repeats.due(now):
            log.warning("%s", line)

    def _until_next(self, now: float) -> float:
        resumes = (c.resume_at - now for c in self._connections.values() if c.resume_at > now)
        return max(0.001, min((*resumes, TURN_S)))

    def _arm(self, now: float) -> None:
        """Tells the selector what to wait for, and ends who took too long to say hello."""
        for number, connection in list(self._connections.items()):
            if not connection.meter.has_greeted and now - connection.came_at > HANDSHAKE_S:
                self._cast_out(connection, "said no hello in time")
                continue
            for end, events in connection.events(now).items():
                self._wait_for(end, events, number)

    def _wait_for(self, end: socket.socket, events: int, number: int) -> None:
        key = self._selector.get_map().get(end)
        if key is None:
            if events:
                self._selector.register(end, events, number)
        elif not events:
            self._selector.unregister(end)
        elif key.events != events:
            self._selector.modify(end, events, number)

    def _serve(self, connection: Connection, now: float) -> None:
        connection.served_at = now
        is_trusted = connection.number in self._guests.trusted
        budgets = [connection.budget] if is_trusted else [connection.budget, self._strangers]
        try:
            connection.pass_out()
            may_pass = connection.resume_at <= now and connection.may_pass_in
            if may_pass and min(b.left(now) for b in budgets) > 0:
                n_units = connection.pass_in(1)
                for budget in budgets:
                    budget.spend(n_units, now)
            connection.resume_at = max(b.ready_at(now) for b in budgets)
        except PeerLeft:
            self._end(connection.number)
        except ProtocolError as error:
            self._cast_out(connection, "breaks the rules of ZMTP", str(error))

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(MAX_ACCEPTED):
            try:
                outer, (host, *_) = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED or not self._make_room():
                    time.sleep(0.01)
                return
            self._let_in(outer, host)

    def _let_in(self, outer: socket.socket, host: str) -> None:
        now = time.monotonic()
        host = host.removeprefix("::ffff:")
        if self._guests.is_cut_off(host, now):
            outer.close()
            return
        free = n_free()
        if free is not None and free < FREE_DESCRIPTORS:
            self._make_room()
        number = next(self._numbers)
        try:
            inner = self._connect(number)
        except OSError:
            outer.close()
            return
        outer.setblocking(False)
        with contextlib.suppress(OSError):
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections[number] = Connection(
            number,
            host,
            outer,
            inner,
            FrameMeter(self._max_message_bytes),
            Budget(PER_S, BURST, now),
            came_at=now,
            is_sealed=self._is_sealed,
        )
        goes = self._guests.enter(number, host)
        if goes is not None:
            self._tell(host, "more connections than are kept; strangers' oldest ones go")
            self._end(goes)

    def _connect(self, number: int) -> socket.socket:
        """Connects to the socket behind, by a name that says which connection it is."""
        inner = socket.socket(socket.AF_UNIX)
        try:
            is_abstract = self._target.startswith("@")
            name = f"{self._name}:{number}"
            if is_abstract:
                inner.bind(f"\0{name}")
                inner.connect(f"\0{self._target[1:]}")
            else:
                path = f"{os.path.dirname(self._target)}/{name}"  # noqa: PTH120
                inner.bind(path)
                os.unlink(path)  # noqa: PTH108  the name stays with the socket
                inner.connect(self._target)
            inner.setblocking(False)
        except OSError:
            inner.close()
            raise
        return inner

    def _make_room(self) -> bool:
        """Ends a stranger's connection where descriptors are lacking; False without any."""
        self._tell("all peers", "all file descriptors of this process are taken, strangers go")
        number = self._guests.least_wanted()
        if number is None:
            return False
        self._end(number)
        return True

    def _trust(self, numbers: frozenset[int]) -> None:
        now = time.monotonic()
        for number in numbers - self._guests.trusted:
            if number in self._connections:
                self._connections[number].budget = Budget(TRUSTED_PER_S, TRUSTED_BURST, now)
        self._guests.trusted = numbers

    def _offend(self, number: int, what: str) -> None:
        connection = self._connections.get(number)
        if connection is None:
            return
        connection.n_offences += 1
        if connection.n_offences > MAX_OFFENCES:
            self._cast_out(connection, what)

    def _cast_out(self, connection: Connection, kind: str, detail: str = "") -> None:
        self._tell(connection.address, kind, detail)
        self._end(connection.number)
        if self._guests.offend(connection.address, time.monotonic()):
            self._tell(connection.address, "is cut off for a while")

    def _tell(self, peer: str, kind: str, detail: str = "") -> None:
        if self._repeats.is_first(peer, kind, time.monotonic()):
            log.warning("%s: %s%s", peer, kind, f" ({detail})" if detail else "")

    def _end(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        self._guests.leave(number)
        if connection is not None:
            for end in (connection.outer, connection.inner):
                with contextlib.suppress(KeyError):
                    self._selector.unregister(end)
            connection.close()
