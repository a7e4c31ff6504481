"""What a server says of itself: its models, its health, its figures."""

from __future__ import annotations

import asyncio

from aiohttp import web

from api.body import json_response
from api.context import CONTEXT
from api.engine_client import refuse_unless_ready
from api.errors import api_error
from api.served_model import ServedModel
from dllama.errors import ClusterError, EngineBusy

ROUTES_SHOWN = {
    "POST /v1/chat/completions": "chat, streamed or whole",
    "POST /v1/completions": "continue a text, streamed or whole",
    "GET /v1/models": "the models served here",
    "GET /health": "200 once the model serves",
    "GET /stats": "speed, memory and the share of each node",
    "POST /tokenize": 'ids of a text: {"content": "..."}',
    "POST /detokenize": 'text of ids: {"tokens": [...]}',
    "POST /apply-template": 'the prompt of a chat: {"messages": [...]}',
}


async def index(request: web.Request) -> web.Response:
    models = request.app[CONTEXT].models.all()
    return json_response(
        {
            "server": request.app[CONTEXT].config.fingerprint,
            "models": [model.id for model in models],
            "routes": ROUTES_SHOWN,
        }
    )


def describe(model: ServedModel) -> dict[str, object]:
    """A model as /v1/models lists it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "dllama",
        "aliases": list(model.aliases),
        "meta": {"n_ctx": model.max_seq_len, "n_vocab": model.tokenizer.vocab_size},
    }


async def list_models(request: web.Request) -> web.Response:
    models = request.app[CONTEXT].models.all()
    return json_response({"object": "list", "data": [describe(model) for model in models]})


async def one_model(request: web.Request) -> web.Response:
    return json_response(describe(request.app[CONTEXT].models.find(request.match_info["name"])))


async def health(request: web.Request) -> web.Response:
    """200 once every model serves, else 503 with how far the first of the others is."""
    for model in request.app[CONTEXT].models.all():
        state = model.engine.state
        try:
            refuse_unless_ready(state)
        except EngineBusy as busy:
            told = api_error(busy)
            body = {"status": state.state, "progress": state.progress, "detail": state.detail}
            return json_response(body | told.body(), status=told.status, headers=told.headers)
    return json_response({"status": "ok"})


async def stats(request: web.Request) -> web.Response:
    """The engine's figures and the server's own; without an engine that answers, the latter."""
    context = request.app[CONTEXT]
    model = context.models.find(request.query.get("model"))
    state = model.engine.state
    figures: dict[str, object] = {"model": model.id, "state": state.state}
    try:
        async with asyncio.timeout(context.config.stats_timeout_s):
            figures = await model.engine.stats() | figures
    except (TimeoutError, ClusterError) as error:
        figures["detail"] = state.detail or str(error) or "The engine is too busy to answer."
    latency = context.meter.latency_ms()
    figures.setdefault("latency_ms", latency)
    figures["api"] = {
        "open_requests": context.meter.n_open,
        "requests": context.meter.n_total,
        "latency_ms": latency,
    }
    return json_response(figures)
