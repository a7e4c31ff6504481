"""POST /completion, /completions and /infill: llama-server's own API over the same engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web

from api.answers.plan import text_plan
from api.body import read_request
from api.context import CONTEXT
from api.engines.client import refuse_unless_taken
from api.model_use import use_model_for
from api.replies.made import Made
from api.replies.native import NativeWriter
from api.requests.native import PREFIX, NativeRequest, parse_infill, parse_native_completion
from api.requests.prompts.prompting import check_length, infill_ids, mixed_ids, sampling_of
from api.routes.answering import answer, check_ready, new_id
from api.served_model import ServedModel
from dllama.errors import RequestError


async def completion(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_request(request)
        wanted, given, is_list = parse_native_completion(body, request.path)
        n_sequences = len(given) * wanted.generation.n
        if n_sequences > context.config.max_sequences:
            raise RequestError(
                f"`prompt` asks for {n_sequences} answers, but a request may have "
                f"{context.config.max_sequences} in all; send several requests.",
                param="prompt",
            )
        model = await use_model_for(request, wanted.generation)
        refuse_unless_taken(model.engine.state)
        options = wanted.generation.options
        prompts = [await mixed_ids(model, prompt, options) for prompt in given]
        return await answer_natively(request, model, wanted, prompts, is_list=is_list)


async def infill(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_request(request)
        wanted, parts = parse_infill(body, request.path)
        model = await use_model_for(request, wanted.generation)
        ids = await asyncio.to_thread(infill_ids, model, parts)
        check_length(model, ids, PREFIX.names[0])
        return await answer_natively(request, model, wanted, [ids], is_list=wanted.generation.n > 1)


async def answer_natively(
    request: web.Request, model: ServedModel, wanted: NativeRequest, prompts: list[list[int]], *,
    is_list: bool,
) -> web.StreamResponse:  # fmt: skip
    """Continues every prompt; answers with an object, an array, or a stream."""
    shared = await check_ready(request, model, wanted.generation)
    samplings = sampling_of(model, shared)
    n_predict = wanted.n_predict
    if n_predict < 0 and model.defaults.n_predict is not None:
        n_predict = model.defaults.n_predict
    made = Made(model, shared, prompts, samplings, n_predict)
    writer = NativeWriter(new_id("cmpl"), made, wanted, is_list=is_list)
    plan = text_plan(shared.form)
    if wanted.n_predict:
        plan = replace(plan, n_indent=wanted.n_indent, max_line_s=wanted.max_line_s)
    return await answer(
        request, model, shared, prompts, samplings, writer, plan, ping_s=wanted.ping_s
    )
