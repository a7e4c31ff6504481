"""A stream that is kept, to one of its readers: from any byte that it still holds, then live."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from api.config import ApiConfig
from api.conversation_streams import ConversationStream, OffsetLost
from api.replies.client_sink import ClientSink
from api.replies.event_stream import ReaderGone

log = logging.getLogger(__name__)


async def replay(
    request: web.Request,
    config: ApiConfig,
    stream: ConversationStream,
    offset: int = 0,
    *,
    patience_s: float = 0.0,
) -> web.StreamResponse:
    """Answers with the bytes of a stream from `offset` on, until it ends. The headers wait
    `patience_s` for the first of them, and for an error instead, which is raised. A reader that is
    so slow that bytes are gone before it takes them is cut off, so that it notices."""
    data: bytes | None = None
    try:
        async with asyncio.timeout(patience_s):
            data = await stream.read(offset)
    except TimeoutError:
        pass  # it has begun, and tells nothing yet
    if stream.failure is not None:
        raise stream.failure
    sink = ClientSink(request, config, stream.form)
    await sink.open()
    try:
        if data is None:
            data = await stream.read(offset)
        while data:
            await sink.write(data)
            offset += len(data)
            data = await stream.read(offset)
        await sink.close()
    except OffsetLost as lost:
        log.warning("a reader of %s is too slow: %s", stream.conversation.id, lost)
        sink.break_off()
    except ReaderGone as gone:
        log.info("a reader of %s is gone: %s", stream.conversation.id, gone)
    return sink.response
