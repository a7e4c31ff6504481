"""A response of server-sent events, to a reader who may be slow, silent or gone, and the seam to
the writers: one for each API, from the same events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Protocol

import orjson
from aiohttp import web

from api.answers.events import Event
from api.config import ApiConfig
from api.errors import ApiError, api_error, unforeseen
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

Json = dict[str, object]

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back until it is complete
}
MAX_UNWATCHED = 16 * 1024  # bytes; a write buffer takes four times as much before writers wait


class ReplyWriter(Protocol):
    """Writes one answer in the words of one API, whole or event by event."""

    @property
    def id(self) -> str: ...

    def whole(self, events: Sequence[Event]) -> object:
        """Returns the JSON of a complete answer."""
        ...

    def streamed(self, event: Event) -> bytes:
        """Returns the server-sent events for an event, b"" for none."""
        ...

    def failed(self, error: ApiError) -> bytes:
        """Returns the server-sent events that say why the answer breaks off."""
        ...

    def ended(self) -> bytes:
        """Returns the end of a stream, also of one that has failed: readers wait for it."""
        ...


def data_event(data: object) -> bytes:
    """Returns a server-sent event without a name."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def named_event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


class ReaderGone(Exception):
    """Raised when the client has left, or has read nothing for `stall_timeout_s`."""


class EventStream:
    """Writes events as they come. A full socket buffer makes the writer wait, and it alone."""

    def __init__(self, request: web.Request, config: ApiConfig, writer: ReplyWriter) -> None:
        self.response = web.StreamResponse(headers=HEADERS)
        self._request = request
        self._writer = writer
        self._stall_timeout_s = config.stall_timeout_s

    async def run(self, sending: Coroutine[None, None, None]) -> web.StreamResponse:
        """Opens the stream, sends what `sending` sends, and ends it. Errors become events; a
        reader that has left is only logged."""
        try:
            await self.response.prepare(self._request)  # from here on errors are events
        except BaseException:
            sending.close()  # the reader left before the first word
            raise
        try:
            try:
                await sending
            except DllamaError as error:
                await self._write(self._writer.failed(api_error(error)))
            except ReaderGone:
                raise
            except Exception:
                log.exception("stream %s failed", self._writer.id)
                await self._write(self._writer.failed(unforeseen()))
            await self._write(self._writer.ended())
            await self._guard(self.response.write_eof())
        except ReaderGone as gone:
            log.info("the reader of %s is gone: %s", self._writer.id, gone)
        return self.response

    async def send(self, events: Sequence[Event]) -> None:
        """Sends the events in the writer's words. Raises ReaderGone."""
        streamed = self._writer.streamed
        data = streamed(events[0]) if len(events) == 1 else b"".join(map(streamed, events))
        await self._write(data)

    async def ping(self) -> None:
        """Sends a comment, which readers skip, to show that the stream lives."""
        await self._write(b":\n\n")

    async def _write(self, data: bytes) -> None:
        if not data:
            return None
        transport = self._request.transport
        is_behind = transport is None or transport.get_write_buffer_size() > 0
        if is_behind or len(data) > MAX_UNWATCHED:
            return await self._guard(self.response.write(data))
        try:  # this cannot wait, and a timer for each event would cost more than the event
            await self.response.write(data)
        except ConnectionError as error:
            raise ReaderGone(str(error)) from None

    async def _guard(self, writing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await writing
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ReaderGone(f"nothing was read for {self._stall_timeout_s:g} s") from None
        except ConnectionError as error:
            raise ReaderGone(str(error)) from None
