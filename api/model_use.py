"""The model of a request: loaded before it is answered, and kept until that is done."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from aiohttp import web

from api.context import CONTEXT
from api.conversation_streams import ConversationEnded
from api.errors import ApiError
from api.requests.generation import GenerationRequest
from api.requests.stream_options import conversation_of
from api.served_model import ServedModel
from api.timeline import TIMELINE
from dllama.logs.context import about_model

LEASES = web.RequestKey("LEASES", AsyncExitStack)
OFF = ("0", "false", "off", "no")


async def use_model(
    request: web.Request, name: str | None, *, keep_s: float | None = None, streams: bool = False
) -> ServedModel:
    """Returns the model that a request names, loaded and awake; it stays so until the request is
    answered. `keep_s` is how long it stays loaded without work after that, None as before. A
    request that `streams` to a conversation waits on without its client. Raises as Models.use."""
    context, asked_s = request.app[CONTEXT], time.monotonic()
    models, keys = context.models, context.config.api_keys
    conversation = conversation_of(request.headers, keys) if streams else None
    using = request[LEASES].enter_async_context(
        models.use(name, loads=asked_to_load(request), keep_s=keep_s)
    )
    try:
        if conversation is not None:
            using = context.streams.before_begin(conversation, using)
        model = await using
    except ConversationEnded:
        raise ApiError(
            400, "This request was cancelled: its conversation was ended while its model loaded."
        ) from None
    about_model(model.id)
    load = models.last_load(model)
    request[TIMELINE].note_model(model.id, asked_s, time.monotonic(), load)
    return model


async def use_model_for(request: web.Request, asked: GenerationRequest) -> ServedModel:
    """Returns the model that a request for an answer names, as `use_model` does."""
    return await use_model(request, asked.model, streams=asked.stream)


def asked_to_load(request: web.Request) -> bool | None:
    """Returns whether a request wants that a missing model is loaded for it; None where it says
    nothing."""
    told = request.query.get("autoload")
    return None if told is None else told.lower() not in OFF
