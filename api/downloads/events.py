"""The events of all downloads, over a WebSocket or as server-sent events. Readers first hear how
the downloads stand that wait or run."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from api.config import ApiConfig
from api.context import CONTEXT
from api.downloads.service import downloads_of
from api.errors import ApiError
from api.http.origins import is_welcome
from api.replies.client_sink import ClientSink
from api.replies.event_stream import SSE, ReaderGone, data_event
from dllama.hub.downloads import Reader

MAX_CLIENT_BYTES = 4096  # of a message of a client, which is not read


async def events(request: web.Request) -> web.StreamResponse:
    config = request.app[CONTEXT].config
    with downloads_of(request).reader() as reader:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await over_websocket(request, config, reader)
        return await over_sse(request, config, reader)


async def over_sse(request: web.Request, config: ApiConfig, reader: Reader) -> web.StreamResponse:
    sink = ClientSink(request, config, SSE)
    await sink.open()
    try:
        await sink.write(SSE.ping)  # clients learn at once that they are heard
        while True:
            try:
                async with asyncio.timeout(config.ping_s if config.ping_s > 0 else None):
                    told = await reader.wait()
            except TimeoutError:
                await sink.write(SSE.ping)
                continue
            await sink.write(b"".join(data_event(event.as_json()) for event in told))
    except ReaderGone:
        return sink.response


async def over_websocket(
    request: web.Request, config: ApiConfig, reader: Reader
) -> web.StreamResponse:
    """Sends each event as a text. Browsers let any page open a WebSocket, so its origin is looked
    at here."""
    origin = request.headers.get("Origin")
    if origin is not None and not is_welcome(origin, config):
        raise ApiError(403, f"Pages of {origin:.200} may not call this server (--cors-origins).")
    socket = web.WebSocketResponse(
        heartbeat=config.ping_s if config.ping_s > 0 else None, max_msg_size=MAX_CLIENT_BYTES
    )
    await socket.prepare(request)
    sending = asyncio.create_task(_send(socket, config, reader))
    try:
        async for _ in socket:  # what clients say is not listened to
            pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return socket


async def _send(socket: web.WebSocketResponse, config: ApiConfig, reader: Reader) -> None:
    """Sends events until the client leaves, or reads nothing for too long."""
    try:
        while True:
            for event in await reader.wait():
                async with asyncio.timeout(config.stall_timeout_s):
                    await socket.send_str(orjson.dumps(event.as_json()).decode())
    except (TimeoutError, ConnectionError):
        await socket.close(drain=False)
