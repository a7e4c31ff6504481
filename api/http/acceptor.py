"""Accepts connections for as long as there are file descriptors for them; then others wait.

asyncio's own servers try on where accept() fails for want of descriptors, faster and faster, and
write a traceback each time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from dllama.host.descriptors import EXHAUSTED, n_free

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that the system keeps waiting for us
BATCH = 64  # accepted at a time, then others get their turn
RESERVE = 16  # descriptors that connections leave for files and a new engine, but at most half
RETRY_S = 0.25
TELL_AGAIN_S = 60.0  # between two lines in the log about the same lack


class Acceptor:
    """Accepts the connections of all sockets of a server.

    `max_connections` is None where there is no limit. `make_room`, called where it is reached,
    closes connections that nobody uses.
    """

    def __init__(
        self,
        server: web.Server,
        tls: ssl.SSLContext | None,
        make_room: Callable[[], object],
        max_connections: int | None,
    ) -> None:
        self._server, self._tls, self._make_room = server, tls, make_room
        self._max_connections = max_connections
        self._listeners: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self._loop = asyncio.get_running_loop()

    def add(self, sockets: Iterable[socket.socket]) -> None:
        """Begins to accept on bound sockets, which close() closes."""
        for listener in sockets:
            self._listeners.append(listener)
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Accepts no more; connections that are open stay."""
        if self._retry is not None:
            self._retry.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            if listener.family == socket.AF_UNIX:
                Path(listener.getsockname()).unlink(missing_ok=True)
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            if self._is_full():
                return self._wait(f"{self._n_open()} connections are open")
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                return self._wait(f"no connection can be accepted ({error.strerror})")
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        return None

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server, connection, ssl=self._tls)
        except (OSError, TimeoutError) as error:  # one that leaves, or speaks no TLS
            log.debug("a connection came to nothing: %s", error)
            with suppress(OSError):
                connection.close()

    def _n_open(self) -> int:
        return len(self._server.connections) + len(self._starting)

    def _is_full(self) -> bool:
        return self._max_connections is not None and self._n_open() >= self._max_connections

    def _wait(self, what: str) -> None:
        """Lets new connections wait in the system's queue for a moment."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._make_room()
        if self._loop.time() - self._told_at > TELL_AGAIN_S:
            self._told_at = self._loop.time()
            log.warning(
                "%s, all that this process may have: idle ones are closed, and new ones wait until "
                "others end; raise the limit of open files (ulimit -n)", what,
            )  # fmt: skip
        self._retry = self._loop.call_later(RETRY_S, self._go_on)

    def _go_on(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)


def listening(server: asyncio.Server) -> list[socket.socket]:
    """Returns sockets of our own for those that an asyncio server has bound, and listens on them.
    Raises OSError where another program does."""
    found: list[socket.socket] = []
    try:
        for bound in server.sockets:
            found.append(socket.socket(fileno=os.dup(bound.fileno())))
            found[-1].setblocking(False)
            found[-1].listen(BACKLOG)
    except OSError:
        for each in found:
            each.close()
        raise
    return found


def room_for_connections() -> int | None:
    """Returns how many connections there are descriptors for; None without a limit."""
    free = n_free()
    return None if free is None else max(1, free - min(RESERVE, free // 2))
