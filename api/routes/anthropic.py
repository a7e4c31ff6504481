"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API over the same engine."""

from __future__ import annotations

import uuid

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.replies.anthropic import AnthropicDialect
from api.requests.anthropic import chat_body
from api.requests.generation import MODEL
from api.routes.chat import answer_chat
from api.routes.token_counts import count_chat


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
