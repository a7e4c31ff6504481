"""Routes of other servers that this one has not, answered with a sentence instead of a 404."""

from __future__ import annotations

from aiohttp import web

from api.errors import ApiError

RERANK = "rank texts: no model it runs was trained for that"
AUDIO = "hear: no model it runs takes sound"
ADAPTERS = "load adapters: merge a LoRA adapter into the model file"
WHAT = {
    "/rerank": RERANK, "/reranking": RERANK, "/v1/rerank": RERANK, "/v1/reranking": RERANK,
    "/audio/transcriptions": AUDIO, "/v1/audio/transcriptions": AUDIO,
    "/v1/audio/speech": "speak: no model it runs makes sound",
    "/v1/images/generations": "draw: no model it runs makes images",
    "/v1/moderations": "judge texts: no model it runs was trained for that",
    "/lora-adapters": ADAPTERS, "/props": "change its properties while it runs: restart it",
}  # fmt: skip


async def not_supported(request: web.Request) -> web.StreamResponse:
    raise ApiError(
        501, f"This server does not {WHAT[request.path]}.", "not_supported_error",
        code="not_supported",
    )  # fmt: skip


async def no_adapters(request: web.Request) -> web.Response:
    """None are ever loaded."""
    return web.json_response([])


ROUTES = (
    *(web.post(path, not_supported) for path in WHAT),
    web.get("/lora-adapters", no_adapters),
)
