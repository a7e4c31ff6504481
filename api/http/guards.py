"""Middlewares of every route: errors become JSON, API keys are checked, and browsers are told from
which origins they may call (CORS)."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Handler

from api import left_out
from api.body import json_response
from api.context import CONTEXT
from api.errors import ApiError, api_error, bad_api_key, body_too_large, unforeseen
from api.http import request_log
from api.http.keys import key_of
from api.http.origins import is_welcome
from api.model_use import LEASES
from api.replies import anthropic, ollama
from api.routes.table import PUBLIC_PATHS
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

OPENAI = "/v1/"
EXPOSED = ", ".join((left_out.HEADER, request_log.HEADER, request_log.TIMING_HEADER))
# The errors of other makers' APIs, by how their routes begin; all others are OpenAI's.
ERROR_BODIES = {"/v1/messages": anthropic.error_body, "/api/": ollama.error_body}


def error_response(request: web.Request, error: ApiError) -> web.Response:
    """Returns the error in the shape that the clients of this route read."""
    path = request.app[CONTEXT].route_of(request)
    of_maker = (body for start, body in ERROR_BODIES.items() if path.startswith(start))
    body_of = next(of_maker, None)
    body = error.body(has_number=not path.startswith(OPENAI)) if body_of is None else body_of(error)
    return json_response(body, status=error.status, headers=error.headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every exception in the shape of the route's API; an unexpected one is logged and a
    500."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return http_refusal(request, refusal)
    except DllamaError as error:
        told = api_error(error)
        if told.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return error_response(request, told)
    except ConnectionError:
        raise  # the client is gone; there is nobody to tell
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(request, unforeseen())


def http_refusal(request: web.Request, refusal: web.HTTPException) -> web.Response:
    """Returns aiohttp's own refusal (no such route, wrong method, ...) in the shape of ours."""
    if refusal.status == 404:
        error = ApiError(
            404, f"There is no route {request.path:.200}; GET / lists them.", "not_found_error"
        )
    elif isinstance(refusal, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(refusal.allowed_methods))
        error = ApiError(405, f"{request.path} takes {allowed}, not {request.method}.")
    elif refusal.status == 413:
        error = body_too_large(request.app[CONTEXT].config.max_body_bytes)
    else:
        kind = "invalid_request_error" if refusal.status < 500 else "server_error"
        error = ApiError(refusal.status, refusal.reason, kind)
    response = error_response(request, error)
    if "Allow" in refusal.headers:
        response.headers["Allow"] = refusal.headers["Allow"]
    return response


@web.middleware
async def keys_checked(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers 401 without one of the configured API keys, except on public routes."""
    keys = request.app[CONTEXT].config.api_keys
    if keys and not is_public(request) and key_of(request.headers, keys) is None:
        raise bad_api_key()
    return await handler(request)


def is_public(request: web.Request) -> bool:
    context = request.app[CONTEXT]
    vertex = context.config.vertex
    return context.route_of(request) in PUBLIC_PATHS or (
        vertex is not None and request.path == vertex.health
    )


@web.middleware
async def models_released(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Releases, once a request is answered, the models that its handler has used."""
    async with AsyncExitStack() as leases:
        request[LEASES] = leases
        return await handler(request)


@web.middleware
async def preflight_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers OPTIONS on every route, without a key, as browsers send none. The first guard to see
    a request, so it notes that the connection has brought one."""
    with request.app[CONTEXT].silent.request_on(request):
        return preflight(request) if request.method == "OPTIONS" else await handler(request)


def preflight(request: web.Request) -> web.Response:
    """Returns the answer to a browser that asks what it may send."""
    asked = request.headers.get("Access-Control-Request-Headers")
    return web.Response(
        content_type="text/html",
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
            # "*" does not cover Authorization, so what was asked for is granted by name.
            "Access-Control-Allow-Headers": asked or "*",
            "Access-Control-Max-Age": "600",
        },
    )


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Allows the calling origin if it is configured, in every response, streams too."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    response.headers["Vary"] = "Origin"
    if is_welcome(origin, request.app[CONTEXT].config):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
