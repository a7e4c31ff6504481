"""The routes of a server of many models: load, unload, and what becomes of them."""

from __future__ import annotations

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.downloads.service import DOWNLOADS
from api.errors import ApiError
from api.models.events import Listener
from api.models.pool import ModelPool
from api.replies.client_sink import ClientSink
from api.replies.event_stream import SSE, ReaderGone, data_event
from api.requests.generation import MODEL
from api.requests.verdicts import check_fields
from dllama.errors import RequestError


def pool_of(request: web.Request) -> ModelPool:
    """Returns the models of a router. Raises ApiError 501 where the server has one model."""
    models = request.app[CONTEXT].models
    if not isinstance(models, ModelPool):
        raise ApiError(
            501,
            "This server was started with one model, which stays; start dllama-root with "
            "--models-dir or --models-preset for several.",
            "not_supported_error",
            code="not_supported",
        )
    return models


async def named_model(request: web.Request) -> tuple[ModelPool, str]:
    """Returns the models, and the name in a body. Raises RequestError where it has none."""
    pool, context = pool_of(request), request.app[CONTEXT]
    body = await read_object(request, context.config)
    context.left_out.tell(request, check_fields(body, (MODEL,), request.path))
    name = MODEL.of(body)
    if not name:
        raise RequestError('`model` is missing; send a body like {"model": "..."}.', param="model")
    return pool, name


async def load(request: web.Request) -> web.Response:
    """{"success": true} as soon as the model loads, or waits for its turn to."""
    pool, name = await named_model(request)
    if not await pool.load(name):
        raise RequestError(f"The model {name!r:.200} is already running, or loads.", param="model")
    return json_response({"success": True})


async def unload(request: web.Request) -> web.Response:
    """{"success": true}; answers that are being written may end first. A model that is downloaded
    now is no more."""
    pool, name = await named_model(request)
    if request.app[DOWNLOADS].stop(name):
        return json_response({"success": True})
    if not pool.unload(name):
        raise RequestError(
            f"The model {name!r:.200} is not running: it is not loaded.", param="model"
        )
    return json_response({"success": True})


async def events(request: web.Request) -> web.StreamResponse:
    """What becomes of the models from now on, as server-sent events."""
    pool, config = pool_of(request), request.app[CONTEXT].config
    sink = ClientSink(request, config, SSE)
    with pool.events.listen() as listener:
        try:
            await sink.open()
            await send_events(sink, listener, config.ping_s)
            await sink.close()
        except ReaderGone:
            pass
    return sink.response


async def send_events(sink: ClientSink, listener: Listener, ping_s: float) -> None:
    """Sends events until there are no more; comments while nothing happens."""
    while True:
        try:
            event = await listener.next(ping_s)
        except TimeoutError:
            await sink.write(SSE.ping)
            continue
        if event is None:
            return
        await sink.write(data_event(event))
