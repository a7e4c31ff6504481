"""The application: routes, guards, and the engines' beginning and end."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api import guards
from api.config import ApiConfig
from api.context import CONTEXT, ApiContext
from api.routes import (
    anthropic,
    chat,
    embeddings,
    metrics,
    native,
    responses,
    sessions,
    slots,
    text,
    token_counts,
    unsupported,
)
from api.routes import (
    models as model_routes,
)
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
    web.get("/slots", slots.slots),
    web.post("/slots/{id}", sessions.slot_action),
    web.post("/sessions/{name}", sessions.session_action),
    web.get("/metrics", metrics.metrics),
    web.get("/models", model_routes.list_models),
    web.get("/v1/models", model_routes.list_models),
    web.get("/models/{name:.+}", model_routes.one_model),
    web.get("/v1/models/{name:.+}", model_routes.one_model),
    web.post("/chat/completions", chat.chat_completions),
    web.post("/v1/chat/completions", chat.chat_completions),
    web.post("/completion", native.completion),
    web.post("/completions", native.completion),
    web.post("/infill", native.infill),
    web.post("/embedding", embeddings.native_embeddings),
    web.post("/embeddings", embeddings.native_embeddings),
    web.post("/v1/embeddings", embeddings.openai_embeddings),
    web.post("/v1/completions", chat.completions),
    web.post("/chat/completions/input_tokens", token_counts.chat_input_tokens),
    web.post("/v1/chat/completions/input_tokens", token_counts.chat_input_tokens),
    web.post("/responses", responses.create),
    web.post("/v1/responses", responses.create),
    web.post("/responses/input_tokens", responses.input_tokens),
    web.post("/v1/responses/input_tokens", responses.input_tokens),
    web.get("/v1/responses/{id}", responses.retrieve),
    web.delete("/v1/responses/{id}", responses.remove),
    web.post("/v1/messages", anthropic.messages),
    web.post("/v1/messages/count_tokens", anthropic.count_tokens),
    web.post("/tokenize", text.tokenize),
    web.post("/detokenize", text.detokenize),
    web.post("/apply-template", text.apply_template),
    *unsupported.ROUTES,
)
