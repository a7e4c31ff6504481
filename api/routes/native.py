"""POST /completion, /completions and /infill: llama-server's own API over the same engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from api.answers.plan import text_plan
from api.answers.stream import Answers, make_answers
from api.body import json_response, read_object
from api.context import CONTEXT
from api.engine_client import refuse_unless_ready
from api.replies.event_stream import EventStream
from api.replies.native import NativeAnswer, generation_settings
from api.replies.openai import Json
from api.requests.engine_options import Keeping, with_header
from api.requests.infill import INFILL, infill_ids, parse_infill
from api.requests.native import MixedPrompt, NativeRequest, parse_native_completion
from api.requests.prompting import LONG_CHARS, check_ids, check_length, encode, sampling_of
from api.routes.chat import new_id, next_within
from api.served_model import ServedModel
from dllama.errors import RequestError


class NativeStream(EventStream):
    """Ends without [DONE]: its readers look for `stop`: true."""

    async def done(self) -> None:
        return


async def completion(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        wanted, given, is_list = parse_native_completion(body, request.path)
        model = context.models.find(wanted.generation.model)
        n_sequences = len(given) * wanted.generation.n
        if n_sequences > context.config.max_sequences:
            raise RequestError(
                f"`prompt` asks for {n_sequences} answers, but a request may have "
                f"{context.config.max_sequences} in all; send several requests.",
                param="prompt",
            )
        refuse_unless_ready(model.engine.state)
        prompts = [await mixed_ids(model, prompt, wanted.generation.keeping) for prompt in given]
        return await answer_natively(request, model, wanted, prompts, is_list=is_list)


async def infill(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        wanted, parts = parse_infill(body, request.path)
        model = context.models.find(wanted.generation.model)
        ids = await asyncio.to_thread(infill_ids, model, parts)
        check_length(model, ids, INFILL[0].names[0])
        refuse_unless_ready(model.engine.state)
        return await answer_natively(request, model, wanted, [ids], is_list=wanted.generation.n > 1)


async def mixed_ids(model: ServedModel, prompt: MixedPrompt, keeping: Keeping) -> list[int]:
    """A prompt in tokens; BOS is added only before a text that begins it."""
    parts = [prompt] if isinstance(prompt, str) else prompt

    def make() -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            elif i == 0:
                ids += encode(model, part)
            else:
                ids += model.tokenizer.encode(part, parse_special=True)
        return ids

    n_chars = sum(len(part) for part in parts if isinstance(part, str))
    ids = await asyncio.to_thread(make) if n_chars > LONG_CHARS else make()
    check_ids(model, ids, "prompt")
    check_length(model, ids, "prompt", keeping)
    return ids


async def answer_natively(
    request: web.Request, model: ServedModel, wanted: NativeRequest, prompts: list[list[int]], *,
    is_list: bool,
) -> web.StreamResponse:  # fmt: skip
    """Continues every prompt; answers with an object, an array, or a stream."""
    context, shared = request.app[CONTEXT], wanted.generation
    shared = replace(shared, keeping=with_header(shared.keeping, request.headers))
    if shared.shape is not None:
        await shared.shape.check()
    samplings = sampling_of(model, shared, context.config.sampling)
    answer_id, plan = new_id("cmpl"), text_plan(shared.shape)
    answers = make_answers(model, shared, prompts, samplings, answer_id, context.meter, plan)
    told = []
    for sequence in answers.sequences:
        settings = generation_settings(wanted, samplings[sequence.index % shared.n], shared.stops)
        prompt = prompts[sequence.index // shared.n]
        told.append(NativeAnswer(sequence, wanted, model, settings, prompt))
    try:
        answers.start()
        if shared.stream:
            first = await next_within(answers, context.config.headers_after_s)
            events = NativeStream(request, context.config)
            ping_s = wanted.ping_s or context.config.ping_s
            telling = send_chunks(events, answers, told, first, ping_s)
            return await events.tell(telling, answer_id)
        found = await whole(answers, told)
        return json_response(found if is_list else found[0])
    finally:
        answers.close()


async def whole(answers: Answers, told: Sequence[NativeAnswer]) -> list[Json]:
    while (news := await answers.next()) is not None:
        sequence, text = news
        told[sequence.index].take(text)
    return [answer.whole(is_stream=False) for answer in told]


async def send_chunks(
    events: EventStream,
    answers: Answers,
    told: Sequence[NativeAnswer],
    news: tuple[object, str] | None,
    ping_s: float,
) -> None:
    """Every event of a stream; `news` is what has been read already."""
    seconds = ping_s if ping_s != float("inf") else None
    while True:
        if news is None:
            await events.ping()
        else:
            sequence, text = news
            answer = next(a for a in told if a.sequence is sequence)
            kept = answer.take(text)
            if kept or (not text and answer.sequence.finish is None):
                await events.send(answer.chunk(kept))
            if answer.sequence.finish is not None:
                await events.send(answer.whole(is_stream=True))
                if answers.is_finished:
                    return
        news = await (answers.next() if seconds is None else next_within(answers, seconds))
        if news is None and answers.is_finished:
            return
