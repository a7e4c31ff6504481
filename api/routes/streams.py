"""llama-server's /v1/stream: streams of conversations, read on, looked up and ended."""

from __future__ import annotations

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.conversation_streams import Conversation
from api.errors import ApiError
from api.replies.event_stream import Json
from api.replies.replay import replay
from api.requests.stream_options import CONVERSATION_IDS, asked_id, asked_offset, owner_of
from dllama.errors import RequestError


def asked_conversation(request: web.Request) -> Conversation:
    """Returns the conversation of the client that a query names. Raises RequestError."""
    keys = request.app[CONTEXT].config.api_keys
    return Conversation(owner_of(request.headers, keys), asked_id(request.query))


async def resume(request: web.Request) -> web.StreamResponse:
    """The bytes of a stream from `from` on, then live."""
    context = request.app[CONTEXT]
    asked, offset = asked_conversation(request), asked_offset(request.query)
    stream = context.streams.find(asked)
    if stream is None and context.streams.is_parked(asked):
        raise ApiError(
            503, f"The stream of {asked.id!r:.200} begins once its model is loaded; ask again.",
            "unavailable_error", retry_after_s=1.0,
        )  # fmt: skip
    if stream is None:
        raise ApiError(
            404,
            f"There is no stream of the conversation {asked.id!r:.200}: it was never begun with "
            "that X-Conversation-Id, or was ended, or was complete too long ago.",
            "not_found_error",
        )
    if offset < stream.n_dropped:
        raise RequestError(
            f"Byte {offset} of this stream is lost: it has {stream.n_total} bytes, and only those "
            f"from {stream.n_dropped} on are kept. Begin there, or send the request again.",
            param="from",
        )
    return await replay(request, context.config, stream, offset)


async def end(request: web.Request) -> web.Response:
    """Ends the answer that fills a stream, and forgets it; 204 whether there is one or not."""
    request.app[CONTEXT].streams.remove(asked_conversation(request))
    return web.Response(status=204)


async def lookup(request: web.Request) -> web.Response:
    """The streams of the conversations that the client names; it hears of no others."""
    context = request.app[CONTEXT]
    owner = owner_of(request.headers, context.config.api_keys)
    wanted = CONVERSATION_IDS.of(await read_object(request, context.config))
    found: list[Json] = [
        {
            "conversation_id": stream.conversation.id,
            "is_done": stream.is_done,
            "total_bytes": stream.n_total,
            "started_at": stream.started_at,
            "completed_at": stream.completed_at,
        }
        for stream in context.streams.of(owner, wanted)
    ]
    return json_response(found)
