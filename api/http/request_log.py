"""Gives each request its id, which its answer and every line about it in the logs carry; tells in
the log, in headers and in spans what became of it, and how long each part took."""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from api.context import CONTEXT
from api.http.spans import RequestSpan, Spans
from api.timeline import TIMELINE, Timeline
from dllama.logs.context import about_request, is_sane_id, new_request_id

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
ANTHROPIC, ANTHROPIC_HEADER = "/v1/messages", "request-id"  # as that maker's clients read it
TIMING_HEADER = "Server-Timing"
CLIENT_LEFT = 499  # in logs and spans, as nginx calls it
REQUEST_ID = web.RequestKey("REQUEST_ID", str)


def request_log(spans: Spans | None) -> Middleware:
    """Returns the middleware that tells of every request."""

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(HEADER, "")
        name = request[REQUEST_ID] = given if is_sane_id(given) else new_request_id()
        timeline = request[TIMELINE] = Timeline(time.monotonic())
        span = None if spans is None else begun(spans, request, name)
        status = CLIENT_LEFT
        with about_request(name):
            try:
                response = await handler(request)
                status = response.status
                return response
            finally:
                tell(request, status, timeline)
                if span is not None:
                    span.end(status, timeline, attributes_of(timeline))

    return told


def tell(request: web.Request, status: int, timeline: Timeline) -> None:
    """Writes the line of a request that has ended. Reads are told in detail only, as others ask for
    /health and /metrics all the time."""
    level = logging.DEBUG if request.method == "GET" else logging.INFO
    if not log.isEnabledFor(level):
        return
    took_ms = 1e3 * (time.monotonic() - timeline.began_s)
    n_prompt, n_answer = timeline.n_tokens()
    fields = {
        "method": request.method, "path": request.path, "status": status,
        "duration_ms": round(took_ms, 1), "prompt_tokens": n_prompt, "answer_tokens": n_answer,
    }  # fmt: skip
    fields |= {f"{part}_ms": ms for part, ms in timeline.milliseconds().items()}
    log.log(
        level, "%s %s: %d after %.1f ms", request.method, request.path, status, took_ms,
        extra={"fields": fields},
    )  # fmt: skip


async def add_request_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Names the request in every response, streams too, and the times that are known by then."""
    name = request.get(REQUEST_ID)
    if name is None:
        return
    response.headers[HEADER] = name
    if request.app[CONTEXT].route_of(request).startswith(ANTHROPIC):
        response.headers[ANTHROPIC_HEADER] = name
    timing = request[TIMELINE].server_timing()
    if timing:
        response.headers[TIMING_HEADER] = timing


def begun(spans: Spans, request: web.Request, name: str) -> RequestSpan:
    resource = request.match_info.route.resource
    route = request.path if resource is None else resource.canonical
    attributes = {
        "http.request.method": request.method, "http.route": route, "url.path": request.path,
        "dllama.request_id": name,
    }  # fmt: skip
    return spans.begin(f"{request.method} {route}", request.headers, attributes)


def attributes_of(timeline: Timeline) -> dict[str, str | int]:
    """Returns what is known of a request at its end, by OpenTelemetry's names."""
    if not timeline.model:
        return {}
    n_prompt, n_answer = timeline.n_tokens()
    return {
        "gen_ai.provider.name": "dllama",
        "gen_ai.request.model": timeline.model,
        "gen_ai.usage.input_tokens": n_prompt,
        "gen_ai.usage.output_tokens": n_answer,
    }
