"""POST /v1/chat/completions and /v1/completions: the life of a request, read from the top."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

from aiohttp import web

from api.answers.plan import PLAIN, AnswerPlan, chat_plan, text_plan
from api.answers.sequence import TextSequence
from api.answers.stream import Answers, make_answers
from api.body import json_response, read_object
from api.context import CONTEXT, ApiContext
from api.engine_client import refuse_unless_ready
from api.replies.choice_logprobs import tell_logprobs
from api.replies.dialect import Dialect, DialectStream
from api.replies.event_stream import EventStream
from api.replies.openai import (
    ChatReply,
    Json,
    Reply,
    TextReply,
    progress_of,
    timings_of,
    usage_of,
)
from api.requests.engine_options import with_header
from api.requests.fields import Body
from api.requests.generation import GenerationRequest, parse_chat, parse_completion
from api.requests.prompting import chat_prompt, sampling_of, text_ids
from api.served_model import ServedModel
from dllama.errors import RequestError


async def chat_completions(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        return await answer_chat(request, await read_object(request, context.config))


async def answer_chat(
    request: web.Request, body: Body, dialect: Dialect | None = None
) -> web.StreamResponse:
    """Answers a body of /v1/chat/completions, in a dialect's words where one is given."""
    context = request.app[CONTEXT]
    wanted, conversation = parse_chat(body, request.path)
    model = context.models.find(wanted.model)
    refuse_unless_ready(model.engine.state)
    if wanted.shape is not None:
        await wanted.shape.check()
    await conversation.tools.check()
    keeping = with_header(wanted.keeping, request.headers)
    prompt = await chat_prompt(model, conversation, keeping)
    if keeping.n_keep is None:
        keeping = replace(keeping, n_keep=prompt.n_system)
    wanted = replace(wanted, keeping=keeping)
    plan = chat_plan(model, conversation, wanted.shape, prompt.text)
    head = reply_head(context, model)
    reply = ChatReply(new_id("chatcmpl"), head, include_usage=wanted.include_usage)
    return await answer(request, model, wanted, [prompt.ids], reply, plan, dialect)


async def completions(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_object(request, context.config)
        wanted, texts = parse_completion(body, request.path)
        model = context.models.find(wanted.model)
        if len(texts) * wanted.n > context.config.max_sequences:
            raise RequestError(
                f"`prompt` asks for {len(texts)} prompts times {wanted.n} answers, but a request "
                f"may have {context.config.max_sequences} in all; send several requests.",
                param="prompt",
            )
        refuse_unless_ready(model.engine.state)
        if wanted.shape is not None:
            await wanted.shape.check()
        wanted = replace(wanted, keeping=with_header(wanted.keeping, request.headers))
        prompts = [await text_ids(model, text, keeping=wanted.keeping) for text in texts]
        head = reply_head(context, model)
        reply = TextReply(new_id("cmpl"), head, include_usage=wanted.include_usage)
        return await answer(request, model, wanted, prompts, reply, text_plan(wanted.shape))


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def reply_head(context: ApiContext, model: ServedModel) -> Json:
    """What stands in every object of an answer."""
    return {
        "created": int(time.time()),
        "model": model.id,
        "system_fingerprint": context.config.fingerprint,
    }


async def answer(
    request: web.Request,
    model: ServedModel,
    wanted: GenerationRequest,
    prompts: list[list[int]],
    reply: Reply,
    plan: AnswerPlan = PLAIN,
    dialect: Dialect | None = None,
) -> web.StreamResponse:
    """Has the engine continue every prompt, and answers whole or in a stream, in OpenAI's words or
    those of a dialect.

    However this ends (also by cancellation, when the client leaves), no sequence stays behind.
    """
    context = request.app[CONTEXT]
    samplings = sampling_of(model, wanted, context.config.sampling)
    answers = make_answers(model, wanted, prompts, samplings, reply.id, context.meter, plan)
    if dialect is not None:
        dialect.watch(answers.sequences)
    try:
        answers.start()
        if wanted.stream:
            return await stream(request, wanted, answers, reply, dialect)
        said = await whole(wanted, answers, reply)
        return json_response(said if dialect is None else dialect.whole(said))
    finally:
        answers.close()


async def whole(wanted: GenerationRequest, answers: Answers, reply: Reply) -> Json:
    """The complete answer; raises ClusterError if any of its sequences is lost."""
    texts: list[list[str]] = [[] for _ in answers.sequences]
    while (news := await answers.next()) is not None:
        sequence, text = news
        texts[sequence.index].append(text)
    choices = [
        said_by(sequence, "".join(pieces))
        for pieces, sequence in zip(texts, answers.sequences, strict=True)
    ]
    said = reply.whole(choices, usage_of(answers.sequences, wanted.n))
    tell_logprobs(said, answers.sequences, wanted.logprobs, is_whole=True)
    return {**said, **end_of(wanted, answers)}


def said_by(sequence: TextSequence, text: str) -> tuple[str | Json, str]:
    """What a finished sequence has said, as text or as a message, and why it ended."""
    reader = sequence.reader
    if reader is None or sequence.finish is None:
        return text, str(sequence.finish)
    reader.push(text)
    reader.finish()
    return reader.message(), reader.reason(sequence.finish)


async def stream(
    request: web.Request,
    wanted: GenerationRequest,
    answers: Answers,
    reply: Reply,
    dialect: Dialect | None = None,
) -> web.StreamResponse:
    """The answer as server-sent events. An error before the first of them is raised, and becomes
    an HTTP error; a later one is sent as an event, and [DONE] ends the stream all the same."""
    config = request.app[CONTEXT].config
    first = await next_within(answers, config.headers_after_s)
    if dialect is None:
        events = EventStream(request, config)
    else:
        events = DialectStream(request, config, dialect)
    telling = send_all(events, wanted, answers, reply, first, config.ping_s)
    return await events.tell(telling, reply.id)


News = tuple[TextSequence, str]


async def next_within(answers: Answers, seconds: float) -> News | None:
    """The next piece of text, or None if there is none yet after so long."""
    try:
        async with asyncio.timeout(seconds):
            return await answers.next()
    except TimeoutError:
        return None


async def send_all(
    events: EventStream,
    wanted: GenerationRequest,
    answers: Answers,
    reply: Reply,
    news: News | None,
    ping_s: float,
) -> None:
    """Every event of a stream but [DONE]; `news` is what has been read already."""
    for sequence in answers.sequences:
        opening = reply.opening(sequence.index)
        if opening is not None:
            await events.send(opening)
    while True:
        if news is None:
            await events.ping()
        else:
            sequence, text = news
            for delta in chunks_of(reply, sequence, text):
                tell_logprobs(delta, [sequence], wanted.logprobs)
                if wanted.timings_per_token:
                    delta = {**delta, "timings": timings_of([sequence], 1)}
                await events.send(delta)
            if not text and sequence.finish is None:  # a part of the prompt was read
                delta = reply.delta(sequence.index, "")
                await events.send({**delta, "prompt_progress": progress_of(sequence)})
            if sequence.finish is not None:
                reader, reason = sequence.reader, str(sequence.finish)
                if reader is not None:
                    reason = reader.reason(sequence.finish)
                closing = reply.closing(sequence.index, reason)
                tell_logprobs(closing, [sequence], wanted.logprobs)
                if answers.is_finished:
                    return await send_end(events, wanted, answers, reply, closing)
                await events.send(closing)
        news = await next_within(answers, ping_s)


def chunks_of(reply: Reply, sequence: TextSequence, text: str) -> Iterator[Json]:
    """The chunks that more text of a sequence makes, and at its end what was held back."""
    reader = sequence.reader
    if reader is None:
        if text:
            yield reply.delta(sequence.index, text)
        return
    parts = reader.push(text) if text else []
    if sequence.finish is not None:
        parts += reader.finish()
    for part in parts:
        yield reply.part(sequence.index, part)


async def send_end(
    events: EventStream, wanted: GenerationRequest, answers: Answers, reply: Reply, closing: Json
) -> None:
    """The last finish reason and, if asked for, the usage; the last event has the timings."""
    last = closing
    if wanted.include_usage:
        await events.send(closing)
        last = reply.usage_chunk(usage_of(answers.sequences, wanted.n))
    await events.send({**last, **end_of(wanted, answers)})


def end_of(wanted: GenerationRequest, answers: Answers) -> Json:
    """What the end of an answer tells beside OpenAI's fields: its times, and the seed that gives
    the first choice again; the others' are the next ones."""
    return {
        "timings": timings_of(answers.sequences, wanted.n),
        "seed": answers.sequences[0].seed,
    }
