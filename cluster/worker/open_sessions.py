"""The sessions of a daemon: their processes, and what each of them takes. Knows no sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from cluster.worker.session_process import SessionProcess
from cluster.worker.slots import Slots
from dllama.host.container import available_memory

log = logging.getLogger(__name__)

END_AFTER_S = 15.0  # since its root's connection is gone: longer than a session takes to see it
GONE_S = 10.0  # for a killed process to be gone: its memory is freed, or it waits for a disk


class OpenSessions:
    """Session processes by epoch. `on_change` is told the connections of their roots."""

    def __init__(self, on_change: Callable[[frozenset[int]], None], max_sessions: int) -> None:
        self._on_change = on_change
        self._sessions: dict[int, SessionProcess] = {}
        self._connections: dict[int, int] = {}
        self._left_at: dict[int, float] = {}  # when a root's connection was first missed
        self._killed: list[tuple[SessionProcess, float]] = []  # and until when they are waited for
        self.slots = Slots(max_sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, epoch: int) -> bool:
        return epoch in self._sessions

    def __iter__(self) -> Iterator[tuple[int, SessionProcess]]:
        return iter(list(self._sessions.items()))

    def get(self, epoch: int) -> SessionProcess | None:
        return self._sessions.get(epoch)

    def refusal(self, host: str, needed_bytes: int) -> str | None:
        """Returns why there is no room for one more session of a host, or None."""
        rss, now = self._rss_bytes(), time.monotonic()
        return self.slots.refusal(host, needed_bytes, available_memory(), rss, now)

    def free_bytes(self) -> int:
        """Returns the memory that is free and promised to no session, of whatever root."""
        return max(0, available_memory() - self.slots.promised_bytes(self._rss_bytes()))

    def _rss_bytes(self) -> dict[int, int]:
        return {epoch: session.rss_bytes() for epoch, session in self}

    def add(
        self, epoch: int, session: SessionProcess, connection: int, host: str, needed_bytes: int
    ) -> None:
        self._sessions[epoch], self._connections[epoch] = session, connection
        self.slots.take(epoch, host, needed_bytes, time.monotonic())
        self._tell()

    def forget(self, epoch: int) -> None:
        """Kills a session that still runs, and releases what it held."""
        self._drop(epoch).close()

    def kill_those_of(self, root: str) -> None:
        """Kills the sessions of a root, which it has given up, and does not wait for their end: it
        may take seconds, in which other roots would hear no heartbeat."""
        for epoch, session in self:
            if session.root == root:
                session.kill()
                self._killed.append((self._drop(epoch), time.monotonic() + GONE_S))
                log.info("ended an earlier session of the same root")

    def has_killed(self, root: str) -> bool:
        """Returns whether killed sessions of a root still hold their memory. Those that are not
        gone in time count as gone."""
        now = time.monotonic()
        return any(session.root == root and now < until for session, until in self._killed)

    def reap_killed(self) -> None:
        """Releases what killed sessions held that have ended since."""
        for each in list(self._killed):
            if each[0].has_ended():
                each[0].close()
                self._killed.remove(each)

    def _drop(self, epoch: int) -> SessionProcess:
        session = self._sessions.pop(epoch)
        del self._connections[epoch]
        self._left_at.pop(epoch, None)
        self.slots.free(epoch)
        self._tell()
        return session

    def end_overdue(self) -> None:
        """Asks those to end that no root has joined in time."""
        for epoch in list(self.slots.overdue(time.monotonic())):
            self._sessions[epoch].end("no root joined it in time")

    def end_left(self, is_there: Callable[[int], bool]) -> None:
        """Asks those to end whose roots have left, in case they cannot see it themselves: they are
        stopped, or hang. `is_there` tells whether a connection is."""
        now = time.monotonic()
        for epoch, connection in self._connections.items():
            if is_there(connection):
                self._left_at.pop(epoch, None)
            elif now - self._left_at.setdefault(epoch, now) > END_AFTER_S:
                self._sessions[epoch].end("the root left")

    def close(self) -> None:
        for epoch, _ in self:
            self.forget(epoch)
        while self._killed:
            self._killed.pop()[0].close()

    def _tell(self) -> None:
        self._on_change(frozenset(self._connections.values()))
