"""/v1/responses: OpenAI's Responses API over the same engine, and the responses it remembers."""

from __future__ import annotations

from aiohttp import web

from api.answers.events import Message
from api.body import json_response, read_request
from api.context import CONTEXT
from api.errors import ApiError
from api.model_use import use_model_for
from api.replies.event_stream import Json
from api.replies.responses import ResponsesWriter, item_id
from api.requests.fields import Body
from api.requests.responses import PREVIOUS, ResponsesRequest, parse_responses, with_answer
from api.routes.chat import answer_chat, count_tokens, with_prefill


async def read(
    request: web.Request, *, may_be_empty: bool = False
) -> tuple[ResponsesRequest, Body]:
    """The request of a body, with the conversation that it continues, and the body. If it
    `may_be_empty`, a missing `input` is a text without words."""
    context = request.app[CONTEXT]
    body = await read_request(request)
    if may_be_empty:
        body = {**body, "input": body.get("input") or ""}
    earlier = context.responses.earlier(PREVIOUS.of(body))
    return parse_responses(body, earlier, request.path), body


async def create(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        asked, body = await read(request)
        model = await use_model_for(request, asked.chat.generation)
        chat = with_prefill(asked.chat, body, model)

        def keep(response: Json, said: Message) -> None:
            is_continued = chat.conversation.is_continued
            told = with_answer(asked.messages, said, is_continued=is_continued)
            context.responses.add(response, told)

        on_complete = keep if asked.is_stored else None
        writer = ResponsesWriter(item_id("resp"), model.id, asked.echo, on_complete)
        return await answer_chat(request, model, chat, writer)


async def input_tokens(request: web.Request) -> web.Response:
    """{"input_tokens": n} for a body that would make a response; `input` may be missing."""
    asked, body = await read(request, may_be_empty=True)
    n_tokens = await count_tokens(request, asked.chat, body)
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
