"""Text to tokens and back, and chats to prompts: what needs a tokenizer but no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.model_use import use_model
from api.requests.fields import Body, Field, boolean, string
from api.requests.generation import MODEL
from api.requests.openai import TEMPLATE, parse_conversation, token_ids
from api.requests.prompts.prompting import LONG_CHARS, check_ids, is_long, render
from api.requests.verdicts import CHAT, check_fields
from api.served_model import ServedModel
from dllama.errors import RequestError

CONTENT = Field(("content",), string, None)
ADD_SPECIAL = Field(("add_special",), boolean, False)
PARSE_SPECIAL = Field(("parse_special",), boolean, True)
WITH_PIECES = Field(("with_pieces",), boolean, False)
TOKENS = Field(("tokens",), token_ids, None)


async def read_checked(
    request: web.Request, *fields: Field[object, object]
) -> tuple[Body, ServedModel]:
    """Returns the body, of which these fields and `model` count, and the model that it names."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    context.left_out.tell(request, check_fields(body, (*fields, MODEL), request.path, CHAT))
    return body, await use_model(request, MODEL.of(body))


def missing(name: str, example: str) -> RequestError:
    return RequestError(f"`{name}` is missing; send a body like {example}.", param=name)


async def tokenize(request: web.Request) -> web.Response:
    """{"tokens": [ids]}, or with `with_pieces` [{"id", "piece"}], a piece that is no UTF-8 being
    a list of bytes."""
    body, model = await read_checked(request, CONTENT, ADD_SPECIAL, PARSE_SPECIAL, WITH_PIECES)
    text = CONTENT.of(body)
    if text is None:
        raise missing("content", '{"content": "Hello"}')
    add, parse, pieces = ADD_SPECIAL.of(body), PARSE_SPECIAL.of(body), WITH_PIECES.of(body)

    def make() -> Sequence[object]:
        ids = model.tokenizer.encode(text, add_special=add, parse_special=parse)
        return [{"id": i, "piece": piece(model, i)} for i in ids] if pieces else ids

    tokens = await asyncio.to_thread(make) if len(text) > LONG_CHARS else make()
    return json_response({"tokens": tokens})


def piece(model: ServedModel, token_id: int) -> str | list[int]:
    data = model.tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


async def detokenize(request: web.Request) -> web.Response:
    body, model = await read_checked(request, TOKENS)
    ids = TOKENS.of(body)
    if ids is None:
        raise missing("tokens", '{"tokens": [1, 2, 3]}')
    check_ids(model, ids, "tokens")

    def decode() -> str:  # with the space before a SentencePiece text, which is one of its tokens
        return model.tokenizer.decode(ids, is_continuation=True)

    text = await asyncio.to_thread(decode) if len(ids) > LONG_CHARS else decode()
    return json_response({"content": text})


async def apply_template(request: web.Request) -> web.Response:
    body, model = await read_checked(request, *TEMPLATE)
    conversation = parse_conversation(body)
    if is_long(conversation):
        prompt = await asyncio.to_thread(render, model, conversation)
    else:
        prompt = render(model, conversation)
    return json_response({"prompt": prompt})
