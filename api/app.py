"""The application: routes, guards, and the engines that start and stop with it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api.config import ApiConfig
from api.context import CONTEXT, ApiContext
from api.downloads.service import DOWNLOADS, DownloadService
from api.http import guards
from api.http.request_log import add_request_headers, request_log
from api.http.spans import Spans
from api.left_out import add_left_out_header
from api.models.models import Models
from api.routes.table import served_routes, unsupported_routes
from api.routes.vertex import vertex_routes


def build_app(
    models: Models,
    config: ApiConfig,
    downloads: DownloadService | None = None,
    spans: Spans | None = None,
) -> web.Application:
    """Returns the HTTP server for `models`, ready for api.http.serve.serve; without `downloads` it
    downloads nothing, and without `spans` there are no traces.

    Starts the models when it starts and closes them when it stops. Raises ConfigError where two
    routes would have the same path.
    """
    app = web.Application(
        middlewares=[
            guards.preflight_answered,
            request_log(spans),
            guards.errors_as_json,
            guards.keys_checked,
            guards.models_released,
        ],
        client_max_size=config.max_body_bytes,
    )
    app[CONTEXT] = ApiContext(models, config)
    app[DOWNLOADS] = downloads or DownloadService()
    app.add_routes(served_routes(config.prefix) + unsupported_routes(config.prefix))
    if config.vertex is not None:
        app.add_routes(vertex_routes(config.vertex))
    app.on_response_prepare.append(guards.add_cors_headers)
    app.on_response_prepare.append(add_left_out_header)
    app.on_response_prepare.append(add_request_headers)
    app.cleanup_ctx.append(engines)
    app.cleanup_ctx.append(streams)
    app.cleanup_ctx.append(all_downloads)
    return app


async def all_downloads(app: web.Application) -> AsyncIterator[None]:
    """Stops the downloads when the server stops."""
    yield
    await app[DOWNLOADS].close()


async def streams(app: web.Application) -> AsyncIterator[None]:
    """Ends the answers that go on without a client before the engines close."""
    yield
    await app[CONTEXT].streams.close()


async def engines(app: web.Application) -> AsyncIterator[None]:
    """Starts the models, and closes those that were started."""
    models = app[CONTEXT].models
    try:
        await models.start()
        yield
    finally:
        await models.close()
