"""llama-server's routes of a router's downloads: POST /models begins one, DELETE /models removes a
model."""

from __future__ import annotations

import asyncio

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.downloads.service import DOWNLOADS, downloads_of
from api.requests.generation import MODEL
from api.requests.verdicts import check_fields
from dllama.errors import RequestError
from dllama.hub.found import find_here
from dllama.hub.names import parse_name
from dllama.hub.removal import remove_model


async def begin(request: web.Request) -> web.Response:
    """{"success": true} once the hub has said which files there are; GET /models/sse tells how they
    come."""
    context, downloads = request.app[CONTEXT], downloads_of(request)
    body = await read_object(request, context.config)
    context.left_out.tell(request, check_fields(body, (MODEL,), request.path))
    text = asked_model(MODEL.of(body))
    name = parse_name(text, downloads.settings.endpoint)
    if await asyncio.to_thread(find_here, downloads.settings, name) is not None:
        raise RequestError(
            f"The model {text!r:.200} is here already; POST /models/pull looks for a newer one.",
            param="model",
        )
    task = await downloads.pull(text)
    task.is_kept = True
    return json_response({"success": True})


async def remove(request: web.Request) -> web.Response:
    """{"success": true} once the model's files are gone; one that is loaded is unloaded."""
    text = request.query.get("model")
    if text is None and request.can_read_body:
        text = MODEL.of(await read_object(request, request.app[CONTEXT].config))
    settings = downloads_of(request).settings
    await asyncio.to_thread(remove_model, settings, asked_model(text))
    await request.app[DOWNLOADS].models_changed()
    return json_response({"success": True})


def asked_model(name: str | None) -> str:
    """Returns the name of a request. Raises RequestError where there is none."""
    if not name:
        raise RequestError(
            '`model` is missing; send a body like {"model": "hf.co/USER/REPO:Q4_K_M"}.',
            param="model",
        )
    return name
