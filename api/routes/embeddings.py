"""POST /v1/embeddings, and llama-server's /embedding and /embeddings: texts as vectors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from aiohttp import web

from api.body import json_response, read_object
from api.config import AnswerDefaults
from api.context import CONTEXT
from api.engines.client import refuse_unless_taken
from api.model_use import use_model
from api.replies.event_stream import Json
from api.requests.fields import MAX_INT, Body, Field, Reader, integer, wrong
from api.requests.generation import MODEL
from api.requests.native import MixedPrompt, native_prompts
from api.requests.prompts.prompting import mixed_ids
from api.requests.verdicts import EMBEDDINGS, check_fields
from api.routes.answering import new_id
from api.served_model import ServedModel
from dllama.errors import ClusterError, RequestError
from dllama.limits import MAX_ENTRIES
from dllama.logs.context import request_id
from dllama.requests import Submit

POOLINGS = ("mean", "last", "cls", "none")
MAX_FLOATS = MAX_ENTRIES  # of one text's vectors, with pooling "none"


def choice(*words: str) -> Reader[str]:
    """Returns a reader of one of these words."""

    def read(value: object, name: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise wrong(name, " or ".join(f'"{w}"' for w in words), value)
        return value

    return read


INPUT = Field(("input", "content"), native_prompts, None)
ENCODING_FORMAT = Field(("encoding_format",), choice("float", "base64"), "float")
DIMENSIONS = Field(("dimensions",), integer(1, MAX_INT), None)
POOLING = Field(("pooling",), choice(*POOLINGS), None)
NORMALIZE = Field(("embd_normalize",), integer(-1, 1024), None)  # as in llama.cpp, see `normalised`
FIELDS: tuple[Field[object, object], ...] = (
    MODEL, INPUT, ENCODING_FORMAT, DIMENSIONS, POOLING, NORMALIZE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    model: str | None
    texts: list[MixedPrompt]
    is_base64: bool
    dimensions: int | None
    pooling: str
    norm: int
    left_out: tuple[str, ...]


def parse_embedding(body: Body, route: str, defaults: AnswerDefaults) -> EmbeddingRequest:
    """Parses a body; `defaults` are those of its model. RequestError names the field at fault."""
    left_out = check_fields(body, FIELDS, route, EMBEDDINGS)
    found = INPUT.of(body)
    pooling, norm = POOLING.of(body), NORMALIZE.of(body)
    if found is None:
        raise RequestError(
            "`input` is missing; send a string, a list of strings or token ids.", param="input"
        )
    return EmbeddingRequest(
        model=MODEL.of(body),
        texts=found[0],
        is_base64=ENCODING_FORMAT.of(body) == "base64",
        dimensions=DIMENSIONS.of(body),
        pooling=defaults.pooling if pooling is None else pooling,
        norm=defaults.embd_normalize if norm is None else norm,
        left_out=left_out,
    )


def normalised(vector: np.ndarray, norm: int) -> np.ndarray:
    """Returns the vector (dim,) over its norm: -1 leaves it, 0 scales its largest value to 32760
    (for int16), 2 is Euclid's, any other p the p-norm. The zero vector stays."""
    values = vector.astype(np.float64)
    if norm < 0:
        return vector
    if norm == 0:
        length = float(np.abs(values).max()) / 32760
    else:
        top = float(np.abs(values).max()) or 1.0  # first scaled, so that no power overflows
        length = top * float((np.abs(values / top) ** norm).sum() ** (1 / norm))
    return (values / length if length else values).astype(np.float32)


async def read_embeddings(request: web.Request) -> tuple[EmbeddingRequest, ServedModel, Vectors]:
    """Returns the request, its model, and a vector for each text."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    defaults = context.models.defaults_of(MODEL.of(body))
    wanted = parse_embedding(body, request.path, defaults)
    context.left_out.tell(request, wanted.left_out)
    if len(wanted.texts) > context.config.max_sequences:
        raise RequestError(
            f"`input` has {len(wanted.texts)} texts, and a request may have "
            f"{context.config.max_sequences}; send several requests.",
            param="input",
        )
    model = await use_model(request, wanted.model)
    check_dimensions(model, wanted.dimensions)
    refuse_unless_taken(model.engine.state)
    ids = [await mixed_ids(model, text, param="input", is_answered=False) for text in wanted.texts]
    if wanted.pooling == "none":
        check_floats(model, ids)
    found = await embed(model, ids, wanted.pooling)
    vectors = [
        [normalised(one, wanted.norm) for one in states.reshape(n_vectors(ids_, wanted), -1)]
        for states, ids_ in zip(found, ids, strict=True)
    ]
    return wanted, model, Vectors(ids, vectors)


def n_vectors(ids: Sequence[int], wanted: EmbeddingRequest) -> int:
    """Returns how many vectors a text gets: one, or one for each token."""
    return len(ids) if wanted.pooling == "none" else 1


def check_floats(model: ServedModel, texts: Sequence[Sequence[int]]) -> None:
    """RequestError for a text whose tokens have more states than one message carries."""
    most = max(map(len, texts), default=0)
    if most * model.facts.n_embd > MAX_FLOATS:
        raise RequestError(
            f"`input` is too large: a vector for each of {most} tokens is more than is sent at "
            f"once; send at most {MAX_FLOATS // model.facts.n_embd} tokens a text, or pool them.",
            param="input",
        )


@dataclass(frozen=True, slots=True)
class Vectors:
    """Texts as token ids, and the vectors (dim,) float32 of each: one, or one for every token."""

    ids: list[list[int]]
    vectors: list[list[np.ndarray]]


def check_dimensions(model: ServedModel, dimensions: int | None) -> None:
    """RequestError unless the dimensions asked for are those that the model has."""
    n_embd = model.facts.n_embd
    if dimensions is not None and dimensions != n_embd:
        raise RequestError(
            f"`dimensions` is {dimensions}, but the vectors of {model.id} have {n_embd} and cannot "
            "be shortened; leave it out.",
            param="dimensions",
        )


async def embed(model: ServedModel, prompts: Sequence[list[int]], pooling: str) -> list[np.ndarray]:
    """Returns a vector for each prompt, computed together. However this ends, the engine keeps
    none of them."""
    embedding_id = new_id("embd")
    submits = [
        Submit(
            f"{embedding_id}-{i}", ids, pooling=pooling, cache_prompt=False, request_id=request_id()
        )
        for i, ids in enumerate(prompts)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(vector_of(model, submit)) for submit in submits]
    except BaseExceptionGroup as several:
        first = several.exceptions[0]
        raise first from first.__cause__
    finally:
        for submit in submits:
            model.engine.abort(submit.id)
    return [task.result() for task in tasks]


async def vector_of(model: ServedModel, submit: Submit) -> np.ndarray:
    async for output in model.engine.submit(submit):
        if output.embedding is not None:
            return np.frombuffer(output.embedding, "<f4")
    raise ClusterError("The engine has given no vector for a text; send the request again.")


def shown(vector: np.ndarray, *, is_base64: bool) -> object:
    data = vector.astype("<f4")
    return base64.b64encode(data.tobytes()).decode() if is_base64 else data.tolist()


async def openai_embeddings(request: web.Request) -> web.Response:
    with request.app[CONTEXT].generation():
        wanted, model, found = await read_embeddings(request)
        if wanted.pooling == "none":
            raise RequestError(
                "`pooling` is none, and this API has one vector for each text; send mean, last or "
                "cls, or ask /embedding.",
                param="pooling",
            )
        data: list[Json] = [
            {
                "object": "embedding",
                "index": index,
                "embedding": shown(vector, is_base64=wanted.is_base64),
            }
            for index, [vector] in enumerate(found.vectors)
        ]
        n_tokens = sum(map(len, found.ids))
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return json_response({"object": "list", "model": model.id, "data": data, "usage": usage})


async def native_embeddings(request: web.Request) -> web.Response:
    """[{"index", "embedding": [vector, ...]}]: one vector for each text, with pooling "none" one
    for each of its tokens."""
    with request.app[CONTEXT].generation():
        wanted, _, found = await read_embeddings(request)
        return json_response(
            [
                {
                    "index": index,
                    "embedding": [shown(one, is_base64=wanted.is_base64) for one in vectors],
                }
                for index, vectors in enumerate(found.vectors)
            ]
        )
