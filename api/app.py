"""The application: routes, guards, and the engines' beginning and end."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api import (
    anthropic_routes,
    completion_routes,
    embedding_routes,
    guards,
    metrics_routes,
    model_routes,
    native_routes,
    responses_routes,
    session_routes,
    slot_routes,
    text_routes,
    token_counts,
    unsupported_routes,
)
from api.config import ApiConfig
from api.context import CONTEXT, ApiContext
from api.served_model import ModelRegistry


def build_app(models: ModelRegistry, config: ApiConfig) -> web.Application:
    """The HTTP server for `models`, ready for api.serve.serve.

    Starts the engine clients when it starts and closes them when it stops.
    """
    app = web.Application(
        middlewares=[guards.preflight_answered, guards.errors_as_json, guards.keys_checked],
        client_max_size=config.max_body_bytes,
    )
    app[CONTEXT] = ApiContext(models, config)
    app.add_routes(ROUTES)
    app.on_response_prepare.append(guards.add_cors_headers)
    app.cleanup_ctx.append(engines)
    return app


async def engines(app: web.Application) -> AsyncIterator[None]:
    """Starts every model's engine client, and closes those that were started."""
    started = []
    try:
        for model in app[CONTEXT].models.all():
            await model.engine.start()
            started.append(model.engine)
        yield
    finally:
        for engine in reversed(started):
            await engine.close()


ROUTES = (
    web.get("/", model_routes.index),
    web.get("/health", model_routes.health),
    web.get("/v1/health", model_routes.health),
    web.get("/stats", model_routes.stats),
    web.get("/props", model_routes.props),
    web.get("/slots", slot_routes.slots),
    web.post("/slots/{id}", session_routes.slot_action),
    web.post("/sessions/{name}", session_routes.session_action),
    web.get("/metrics", metrics_routes.metrics),
    web.get("/models", model_routes.list_models),
    web.get("/v1/models", model_routes.list_models),
    web.get("/models/{name:.+}", model_routes.one_model),
    web.get("/v1/models/{name:.+}", model_routes.one_model),
    web.post("/chat/completions", completion_routes.chat_completions),
    web.post("/v1/chat/completions", completion_routes.chat_completions),
    web.post("/completion", native_routes.completion),
    web.post("/completions", native_routes.completion),
    web.post("/infill", native_routes.infill),
    web.post("/embedding", embedding_routes.native_embeddings),
    web.post("/embeddings", embedding_routes.native_embeddings),
    web.post("/v1/embeddings", embedding_routes.openai_embeddings),
    web.post("/v1/completions", completion_routes.completions),
    web.post("/chat/completions/input_tokens", token_counts.chat_input_tokens),
    web.post("/v1/chat/completions/input_tokens", token_counts.chat_input_tokens),
    web.post("/responses", responses_routes.create),
    web.post("/v1/responses", responses_routes.create),
    web.post("/responses/input_tokens", responses_routes.input_tokens),
    web.post("/v1/responses/input_tokens", responses_routes.input_tokens),
    web.get("/v1/responses/{id}", responses_routes.retrieve),
    web.delete("/v1/responses/{id}", responses_routes.remove),
    web.post("/v1/messages", anthropic_routes.messages),
    web.post("/v1/messages/count_tokens", anthropic_routes.count_tokens),
    web.post("/tokenize", text_routes.tokenize),
    web.post("/detokenize", text_routes.detokenize),
    web.post("/apply-template", text_routes.apply_template),
    *unsupported_routes.ROUTES,
)
