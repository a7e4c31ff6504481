"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API over the same engine."""

from __future__ import annotations

import uuid

from aiohttp import web

from api.anthropic_reply import AnthropicDialect
from api.anthropic_request import chat_body
from api.body import json_response, read_object
from api.completion_routes import answer_chat
from api.context import CONTEXT
from api.generation_request import MODEL
from api.token_counts import count_chat


async def messages(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        chat = chat_body(body, request.path)
        model = context.models.find(MODEL.of(body))
        return await answer_chat(
            request, chat, AnthropicDialect(f"msg_{uuid.uuid4().hex}", model.id)
        )


async def count_tokens(request: web.Request) -> web.Response:
    """{"input_tokens": n} for a body that /v1/messages would take; max_tokens may be missing."""
    body = await read_object(request, request.app[CONTEXT].config)
    chat = chat_body(body, request.path)
    return json_response({"input_tokens": await count_chat(request, chat)})
