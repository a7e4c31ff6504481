"""/v1/responses: OpenAI's Responses API over the same engine, and the responses it remembers."""

from __future__ import annotations

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.errors import ApiError
from api.replies.openai import Json
from api.replies.responses import ResponsesDialect, item_id
from api.requests.generation import MODEL
from api.requests.responses import PREVIOUS, input_messages, parse_responses
from api.routes.chat import answer_chat
from api.routes.token_counts import count_chat


async def create(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        earlier = context.responses.earlier(PREVIOUS.of(body))
        asked = parse_responses(body, earlier, request.path)
        model = context.models.find(MODEL.of(body))

        def keep(response: Json) -> None:
            said = input_messages(response["output"])
            context.responses.add(response, asked.messages + said)

        on_complete = keep if asked.is_stored else None
        dialect = ResponsesDialect(item_id("resp"), model.id, asked.echo, on_complete)
        return await answer_chat(request, asked.chat, dialect)


async def input_tokens(request: web.Request) -> web.Response:
    """{"input_tokens": n} for a body that would make a response."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    earlier = context.responses.earlier(PREVIOUS.of(body))
    n_tokens = await count_chat(request, parse_responses(body, earlier, request.path).chat)
    return json_response({"object": "response.input_tokens", "input_tokens": n_tokens})


def unknown_response(name: str) -> ApiError:
    return ApiError(
        404,
        f"This server holds no response {name!r:.100}; it keeps the latest, in memory.",
        "not_found_error",
    )


async def retrieve(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    found = request.app[CONTEXT].responses.find(name)
    if found is None:
        raise unknown_response(name)
    return json_response(found.response)


async def remove(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    if not request.app[CONTEXT].responses.remove(name):
        raise unknown_response(name)
    return json_response({"id": name, "object": "response", "deleted": True})
