"""The model of a request: loaded before it is answered, and kept until that is done."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from aiohttp import web

from api.context import CONTEXT
from api.served_model import ServedModel
from api.timeline import TIMELINE
from dllama.logs.context import about_model

LEASES = web.RequestKey("LEASES", AsyncExitStack)
OFF = ("0", "false", "off", "no")


async def use_model(
    request: web.Request, name: str | None, *, keep_s: float | None = None
) -> ServedModel:
    """Returns the model that a request names, loaded and awake; it stays so until the request is
    answered. `keep_s` is how long it stays loaded without work after that, None as before. Raises
    as Models.use."""
    models, asked_s = request.app[CONTEXT].models, time.monotonic()
    model = await request[LEASES].enter_async_context(
        models.use(name, loads=asked_to_load(request), keep_s=keep_s)
    )
    about_model(model.id)
    load = models.last_load(model)
    request[TIMELINE].note_model(model.id, asked_s, time.monotonic(), load)
    return model


def asked_to_load(request: web.Request) -> bool | None:
    """Returns whether a request wants that a missing model is loaded for it; None where it says
    nothing."""
    told = request.query.get("autoload")
    return None if told is None else told.lower() not in OFF
