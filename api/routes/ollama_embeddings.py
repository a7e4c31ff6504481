"""Ollama's /api/embed, and /api/embeddings from before it: texts as vectors."""

from __future__ import annotations

import time

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.engines.client import refuse_unless_taken
from api.errors import prompt_too_long
from api.model_use import use_model
from api.replies.ollama import nanoseconds
from api.replies.ollama_models import tagged
from api.requests.fields import MAX_INT, Field, a_list, boolean, integer, string
from api.requests.generation import MODEL
from api.requests.ollama.bodies import KEEP_ALIVE, OPTIONS, PROMPT
from api.requests.ollama.options import common_body
from api.requests.prompts.prompting import encode
from api.routes.embeddings import embed, normalised
from api.routes.ollama import known_name
from api.served_model import ServedModel
from dllama.errors import RequestError

EUCLID = 2  # the norm by which vectors have the length 1


def texts(value: object, name: str) -> list[str]:
    """Reads a text or a list of texts."""
    if isinstance(value, str):
        return [value] if value else []
    return [string(item, f"{name}[{i}]") for i, item in enumerate(a_list(value, name))]


INPUT: Field[list[str], list[str]] = Field(("input",), texts, [])
TRUNCATE = Field(("truncate",), boolean, True)
DIMENSIONS = Field(("dimensions",), integer(0, MAX_INT), 0)


def ids_of(model: ServedModel, text: str, *, is_cut: bool) -> list[int]:
    """Returns a text's tokens, cut to the context if it `is_cut`. Raises ApiError for a text that
    does not fit, RequestError for one without tokens."""
    ids = encode(model, text)
    if not ids:
        raise RequestError(
            "`input` has a text that is empty, which has no vector; send some text.", param="input"
        )
    most = model.max_seq_len - 1
    if len(ids) > most and not is_cut:
        raise prompt_too_long(len(ids), model.max_seq_len)
    return ids[:most]


async def new_embeddings(request: web.Request) -> web.Response:
    """{"embeddings": [vector, ...]}, each of length 1."""
    context = request.app[CONTEXT]
    with context.generation():
        began_at = time.perf_counter()
        body = await read_object(request, context.config)
        name, given = known_name(request, MODEL.of(body)), INPUT.of(body)
        keep_s = KEEP_ALIVE.of(body)
        common_body(OPTIONS.of(body))
        if len(given) > context.config.max_sequences:
            raise RequestError(
                f"`input` has {len(given)} texts, and a request may have "
                f"{context.config.max_sequences}; send several requests.",
                param="input",
            )
        model = await use_model(request, name, keep_s=keep_s)
        refuse_unless_taken(model.engine.state)
        is_cut, n_dims = TRUNCATE.of(body), DIMENSIONS.of(body) or None
        found = [ids_of(model, text, is_cut=is_cut) for text in given]
        vectors = [normalised(v[:n_dims], EUCLID) for v in await embed(model, found, "mean")]
        return json_response(
            {
                "model": tagged(model),
                "embeddings": [vector.tolist() for vector in vectors],
                "total_duration": nanoseconds(time.perf_counter() - began_at),
                "load_duration": 1,
                "prompt_eval_count": sum(map(len, found)),
            }
        )


async def old_embeddings(request: web.Request) -> web.Response:
    """{"embedding": vector} of one text, as the model has it; an empty text has none."""
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        name, text = known_name(request, MODEL.of(body)), PROMPT.of(body)
        keep_s = KEEP_ALIVE.of(body)
        common_body(OPTIONS.of(body))
        model = await use_model(request, name, keep_s=keep_s)
        refuse_unless_taken(model.engine.state)
        if not text:
            return json_response({"embedding": []})
        [vector] = await embed(model, [ids_of(model, text, is_cut=True)], "mean")
        return json_response({"embedding": vector.tolist()})
