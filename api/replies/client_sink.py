"""The bytes of a stream to the client of a request, who may be slow, silent or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from aiohttp import web

from api.config import ApiConfig
from api.replies.event_stream import ReaderGone, StreamForm

HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back until it is complete
}
MAX_UNWATCHED = 16 * 1024  # bytes; a write buffer takes four times as much before writers wait


class ClientSink:
    """Writes to the client. A full socket buffer makes the writer wait, and it alone; a client that
    takes nothing for `stall_timeout_s` is given up."""

    def __init__(self, request: web.Request, config: ApiConfig, form: StreamForm) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": form.content_type, **HEADERS})
        self._request = request
        self._stall_timeout_s = config.stall_timeout_s

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
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

    async def close(self) -> None:
        await self._guard(self.response.write_eof())

    def break_off(self) -> None:
        """Closes the connection in the middle of the stream, so that the client sees that it is
        not complete."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _guard(self, writing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await writing
        except TimeoutError:
            self.break_off()
            raise ReaderGone(f"nothing was read for {self._stall_timeout_s:g} s") from None
        except ConnectionError as error:
            raise ReaderGone(str(error)) from None
