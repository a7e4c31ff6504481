"""Models, properties, health and figures of the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.engines.client import refuse_unless_ready
from api.errors import ApiError, api_error
from api.replies.event_stream import Json
from api.replies.settings import ANY_SEED, generation_settings
from api.requests.native import parse_native
from api.requests.prompts.prompting import sampling_of
from api.served_model import ServedModel
from dllama.chat.caps import template_caps
from dllama.errors import ClusterError, EngineBusy


def describe(model: ServedModel) -> dict[str, object]:
    """Returns a model as /v1/models lists it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "dllama",
        "aliases": list(model.aliases),
        "tags": list(model.tags),
        "meta": meta_of(model),
    }


def meta_of(model: ServedModel) -> dict[str, object]:
    """Returns llama-server's `meta` of a model."""
    facts = model.facts
    return {
        "vocab_type": facts.vocab_type,
        "n_vocab": model.tokenizer.vocab_size,
        "n_ctx": model.max_seq_len,
        "n_ctx_train": facts.n_ctx_train,
        "n_embd": facts.n_embd,
        "n_params": facts.n_params,
        "size": facts.size_bytes,
        "ftype": facts.file_type,
    }


def ollama_like(model: ServedModel) -> dict[str, object]:
    """Returns a model as Ollama's clients read it, who look for it under `models`."""
    details = {
        "parent_model": "", "format": "gguf", "family": "", "families": [""],
        "parameter_size": "", "quantization_level": model.facts.file_type,
    }  # fmt: skip
    return {
        "name": model.id, "model": model.id, "modified_at": "", "size": "", "digest": "",
        "type": "model", "description": "", "tags": list(model.tags),
        "capabilities": ["completion"],
        "parameters": "", "details": details,
    }  # fmt: skip


async def list_models(request: web.Request) -> web.Response:
    models = request.app[CONTEXT].models.all()
    return json_response(
        {
            "models": [ollama_like(model) for model in models],
            "object": "list",
            "data": [describe(model) for model in models],
        }
    )


async def props(request: web.Request) -> web.Response:
    """llama-server's properties of a server and its model."""
    context = request.app[CONTEXT]
    model = await context.models.shown(request.query.get("model"))
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
    name = request.match_info["name"]
    return json_response(describe(await request.app[CONTEXT].models.shown(name, is_exact=True)))


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


async def stats(request: web.Request) -> web.Response:
    """Answers with the engine's figures and the server's own; with the latter alone if the engine
    does not answer."""
    context = request.app[CONTEXT]
    model = context.models.look(request.query.get("model"))
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
        "engine_restarts": model.engine.restarts._asdict(),
    }
    return json_response(figures)


async def no_adapters(request: web.Request) -> web.Response:
    """llama-server's list of LoRA adapters; none are ever loaded."""
    return web.json_response([])
