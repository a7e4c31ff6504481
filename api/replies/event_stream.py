"""A response of server-sent events, to a reader who may be slow, silent or gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine

import orjson
from aiohttp import web

from api.config import ApiConfig
from api.errors import ApiError, api_error, unforeseen
from api.replies.openai import Json
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back until it is complete
}


MAX_UNWATCHED = 16 * 1024  # bytes; a write buffer takes four times as much before writers wait


class ReaderGone(Exception):
    """The client has left, or has taken nothing for so long that it counts as gone."""


class EventStream:
    """Writes events as they come. A full socket buffer makes the writer wait, and it alone."""

    def __init__(self, request: web.Request, config: ApiConfig) -> None:
        self.response = web.StreamResponse(headers=HEADERS)
        self._request = request
        self._stall_timeout_s = config.stall_timeout_s

    async def tell(
        self, telling: Coroutine[None, None, None], answer_id: str
    ) -> web.StreamResponse:
        """Opens the stream, sends what `telling` sends, and ends it. Errors become events; a
        reader that is gone is only logged."""
        try:
            await self.open()
        except BaseException:
            telling.close()  # the reader left before the first word
            raise
        try:
            try:
                await telling
            except DllamaError as error:
                await self.fail(api_error(error))
            except ReaderGone:
                raise
            except Exception:
                log.exception("stream %s failed", answer_id)
                await self.fail(unforeseen())
            await self.done()
            await self.close()
        except ReaderGone as gone:
            log.info("the reader of %s is gone: %s", answer_id, gone)
        return self.response

    async def open(self) -> None:
        """Sends the headers; from here on errors are events."""
        await self.response.prepare(self._request)

    async def send(self, event: Json) -> None:
        """One event of JSON; raises ReaderGone."""
        await self._write(b"data: " + orjson.dumps(event) + b"\n\n")

    async def fail(self, error: ApiError) -> None:
        """The event that tells why the answer breaks off; `done` still follows."""
        await self.send(error.body())

    async def ping(self) -> None:
        """A comment, which readers skip, to show that the stream lives."""
        await self._write(b":\n\n")

    async def done(self) -> None:
        """The end of a stream, also of one that has failed: readers wait for it."""
        await self._write(b"data: [DONE]\n\n")

    async def close(self) -> None:
        """Ends the response properly; raises ReaderGone."""
        await self._guard(self.response.write_eof())

    async def _write(self, data: bytes) -> None:
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
