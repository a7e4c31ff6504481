"""How many tokens a chat's prompt has: what needs a template and a tokenizer but no engine."""

from __future__ import annotations

import asyncio

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.requests.fields import Body
from api.requests.generation import parse_chat
from api.requests.prompting import encode, render


async def count_chat(request: web.Request, body: Body) -> int:
    """Tokens of the prompt that a body of /v1/chat/completions makes; RequestError."""
    wanted, conversation = parse_chat(body, request.path)
    model = request.app[CONTEXT].models.find(wanted.model)
    ids = await asyncio.to_thread(lambda: encode(model, render(model, conversation)))
    return len(ids)


async def chat_input_tokens(request: web.Request) -> web.Response:
    body = await read_object(request, request.app[CONTEXT].config)
    n_tokens = await count_chat(request, body)
    return json_response({"object": "response.input_tokens", "input_tokens": n_tokens})
