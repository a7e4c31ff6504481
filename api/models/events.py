"""What becomes of a router's models, told to all who listen (GET /models/sse)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

MAX_QUEUED = 256  # events that a listener has not read: then it is let go

Event = Mapping[str, object]


class Listener:
    """The events since one client began to listen."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(MAX_QUEUED)
        self._is_closed = False

    def put(self, event: Event) -> None:
        """Keeps an event. One that reads too slowly hears no more: it may begin anew."""
        if self._is_closed:
            return
        if self._events.qsize() >= MAX_QUEUED - 1:
            self.close()
        else:
            self._events.put_nowait(event)

    def close(self) -> None:
        """Ends the events, after those that are kept."""
        if not self._is_closed:
            self._is_closed = True
            self._events.put_nowait(None)

    async def next(self, timeout_s: float) -> Event | None:
        """Returns the next event, None at the end. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self._events.get()


class ModelEvents:
    """Hands every event to each listener."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Gives a listener the events from now on."""
        listener = Listener()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def tell(self, model: str, event: str, data: Event | None = None) -> None:
        told: dict[str, object] = {"model": model, "event": event}
        for listener in self._listeners:
            listener.put(told if data is None else {**told, "data": data})

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
