"""Models, properties, health and figures of the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.engines.client import refuse_unless_ready
from api.errors import ApiError, api_error
from api.models.pool import ModelPool
from api.replies.event_stream import Json
from api.replies.model_rows import (
    describe,
    ollama_like,
    pool_row,
    pool_rows,
    pool_stats,
    router_props,
)
from api.replies.settings import ANY_SEED, generation_settings
from api.requests.native import parse_native
from api.requests.prompts.prompting import sampling_of
from api.served_model import ServedModel
from dllama.chat.caps import template_caps
from dllama.errors import ClusterError, EngineBusy


async def list_models(request: web.Request) -> web.Response:
    """All models; of a router with their status, and with ?reload=1 as they are on disk now."""
    models = request.app[CONTEXT].models
    if isinstance(models, ModelPool):
        if "reload" in request.query:
            await models.reload()
        return json_response(pool_rows(models))
    return json_response(
        {
            "models": [ollama_like(model) for model in models.all()],
            "object": "list",
            "data": [describe(model) for model in models.all()],
        }
    )


async def props(request: web.Request) -> web.Response:
    """llama-server's properties of a server and its model, or of a router."""
    context, name = request.app[CONTEXT], request.query.get("model")
    if name is None and isinstance(context.models, ModelPool):
        return json_response(router_props(context.models, context.config))
    model = await context.models.shown(name)
    facts, config = model.facts, context.config
    return json_response(
        {
            "default_generation_settings": {
                "params": default_settings(model, request.path),
                "n_ctx": model.max_seq_len,
            },
            "total_slots": facts.n_slots,
            "model_alias": model.id,
            "model_ftype": facts.file_type,
            "model_path": facts.path,
            "modalities": {"vision": False, "video": False, "audio": False},
            "media_marker": "",
            "endpoint_slots": config.shows_slots,
            "endpoint_props": config.takes_props,
            "endpoint_metrics": True,
            "ui": config.has_page,
            "ui_settings": {},
            "cors_proxy_enabled": False,
            "chat_template": facts.template_source,
            "chat_template_caps": await asyncio.to_thread(template_caps, model.chat_template),
            "bos_token": facts.bos_text,
            "eos_token": facts.eos_text,
            "build_info": config.fingerprint,
            "is_sleeping": model.engine.state.state == "sleeping",
        }
    )


def default_settings(model: ServedModel, route: str) -> Json:
    """Returns what a request for an answer means where it says nothing."""
    defaults = model.defaults
    wanted = parse_native(defaults.fields, route).generation
    [sampling] = sampling_of(model, wanted)
    if wanted.seed is None:
        sampling = replace(sampling, seed=ANY_SEED)
    return generation_settings(
        wanted, sampling, -1 if defaults.n_predict is None else defaults.n_predict
    )


async def set_props(request: web.Request) -> web.Response:
    """Takes what llama-server's POST /props takes, which sets nothing there either."""
    config = request.app[CONTEXT].config
    if not config.takes_props:
        raise ApiError(
            501,
            "This server does not take new properties while it runs; start it with --props.",
            "not_supported_error",
            code="not_supported",
        )
    await read_object(request, config)
    return json_response({"success": True})


async def one_model(request: web.Request) -> web.Response:
    models, name = request.app[CONTEXT].models, request.match_info["name"]
    if isinstance(models, ModelPool):
        return json_response(pool_row(models, models.entry(name)))
    return json_response(describe(await models.shown(name, is_exact=True)))


async def health(request: web.Request) -> web.Response:
    """Answers 200 once every model serves, else 503 with the progress of the first that does not;
    also while the server stops. A model that sleeps serves: requests wait until it is awake."""
    context = request.app[CONTEXT]
    if context.is_stopping:
        told = context.stopping()
        stopping: dict[str, object] = {"status": "stopping", "detail": told.message}
        return json_response(stopping | told.body(), status=told.status, headers=told.headers)
    state = context.models.not_serving()
    if state is None:
        return json_response({"status": "ok"})
    try:
        refuse_unless_ready(state)
    except EngineBusy as busy:
        told = api_error(busy)
        body = {"status": state.state, "progress": state.progress, "detail": state.detail}
        return json_response(body | told.body(), status=told.status, headers=told.headers)
    return json_response({"status": "ok"})


async def live(request: web.Request) -> web.Response:
    """Answers 200 while the server works, also while it loads, recovers or stops; 503 once a model
    has failed for good, so that only another start of the server helps."""
    state = request.app[CONTEXT].models.not_serving()
    if state is None or state.state != "failed":
        return json_response({"status": "ok"})
    told = ApiError(503, state.detail, "unavailable_error")
    return json_response({"status": "failed"} | told.body(), status=told.status)


async def stats(request: web.Request) -> web.Response:
    """Answers with the engine's figures and the server's own; with the latter alone if the engine
    does not answer."""
    context, name = request.app[CONTEXT], request.query.get("model")
    own: dict[str, object] = {
        "open_requests": context.requests.n_open,
        "requests": context.requests.n_total,
    }
    if name is None and isinstance(context.models, ModelPool):
        return json_response({**pool_stats(context.models), "api": own})
    model = context.models.look(name)
    state = model.engine.state
    figures: dict[str, object] = {"model": model.id, "state": state.state}
    try:
        async with asyncio.timeout(context.config.stats_timeout_s):
            figures = await model.engine.stats() | figures
    except (TimeoutError, ClusterError) as error:
        figures["detail"] = state.detail or str(error) or "The engine is too busy to answer."
    latency = context.meter_of(model).latency_ms()
    figures.setdefault("latency_ms", latency)
    restarts = model.engine.restarts._asdict()
    figures["api"] = own | {"latency_ms": latency, "engine_restarts": restarts}
    return json_response(figures)


async def no_adapters(request: web.Request) -> web.Response:
    """llama-server's list of LoRA adapters; none are ever loaded."""
    return web.json_response([])
