"""Connections on which no request ever arrives: after a while they are closed, for each holds a
file handle. Between requests aiohttp's own keep-alive timeout does the same."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

SWEEP_S = 1.0


class SilentConnections:
    """Knows which connections have brought a request, and since when the others are there."""

    def __init__(self, header_timeout_s: float) -> None:
        self._header_timeout_s = header_timeout_s
        self._spoken: set[int] = set()
        self._since: dict[int, float] = {}

    def note(self, request: web.Request) -> None:
        """A request has come over its connection."""
        self._spoken.add(id(request.protocol))

    def sweep(self, server: web.Server, now: float) -> int:
        """Closes what has been silent for too long; how many that were."""
        connections = {id(connection): connection for connection in server.connections}
        self._spoken &= connections.keys()
        silent = connections.keys() - self._spoken
        self._since = {key: self._since.get(key, now) for key in silent}
        late = [key for key, since in self._since.items() if now - since > self._header_timeout_s]
        for key in late:
            connections[key].force_close()
        return len(late)

    async def watch(self, server: web.Server) -> None:
        """Sweeps until it is cancelled."""
        pause_s = min(SWEEP_S, self._header_timeout_s / 2)
        while True:
            await asyncio.sleep(pause_s)
            self.sweep(server, time.monotonic())
