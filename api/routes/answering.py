"""From a parsed request to the response: the sequences are handed to the engine, and the events of
their answers to a writer, whole or as they come. Every generating route ends here."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from aiohttp import web

from api.answers.events import Event, Usage
from api.answers.plan import AnswerPlan
from api.answers.stream import AnswerStream, make_answers
from api.body import json_response
from api.context import CONTEXT
from api.conversation_streams import Conversation, ConversationStream
from api.engines.client import refuse_unless_taken
from api.replies.client_sink import ClientSink
from api.replies.event_stream import SSE, EventStream, ReplyWriter, StreamForm
from api.replies.replay import replay
from api.requests.generation import GenerationRequest
from api.requests.stream_options import conversation_of
from api.served_model import ServedModel
from api.timeline import TIMELINE
from dllama.requests import SamplingParams

AWAY_PING_S = 3.0  # interval of pings while no engine computes


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


async def check_ready(
    request: web.Request, model: ServedModel, wanted: GenerationRequest
) -> GenerationRequest:
    """Returns the request with the session of its headers and, if it names no length, the server's
    own. Raises EngineBusy unless the engine is ready, and RequestError if the grammar cannot be
    compiled. Has told what is left out."""
    request.app[CONTEXT].left_out.tell(request, wanted.left_out)
    refuse_unless_taken(model.engine.state)
    if wanted.form is not None:
        await wanted.form.check()
    if wanted.max_tokens is None:
        wanted = replace(wanted, max_tokens=model.defaults.n_predict)
    return replace(wanted, options=wanted.options.with_header(request.headers))


async def answer(
    request: web.Request,
    model: ServedModel,
    wanted: GenerationRequest,
    prompts: Sequence[list[int]],
    samplings: Sequence[SamplingParams],
    writer: ReplyWriter,
    plan: AnswerPlan,
    *,
    ping_s: float | None = None,
    form: StreamForm = SSE,
) -> web.StreamResponse:
    """Has the engine continue every prompt, and answers whole or in a stream of this form.
    `ping_s` None is the server's own.

    However this ends (also by cancellation, when the client leaves), no sequence stays behind.
    """
    context = request.app[CONTEXT]
    if wanted.timings_per_token:
        plan = replace(plan, tells_usage=True)
    if wanted.max_tokens == 0:
        plan = replace(plan, is_silent=True)
    meter = context.meter_of(model)
    answers = make_answers(model, wanted, prompts, samplings, writer.id, meter, plan)
    request[TIMELINE].note_sequences(answers.sequences)
    pause_s = ping_s or context.config.ping_s
    keys = context.config.api_keys
    conversation = conversation_of(request.headers, keys) if wanted.stream else None
    if conversation is not None:
        return await kept_stream(request, conversation, answers, writer, pause_s, form)
    try:
        events: list[Event] = [*answers.start()]
        if wanted.stream:
            return await stream(request, answers, events, writer, pause_s, form)
        while (more := await answers.next()) is not None:
            events += more
        return json_response(writer.whole(events))
    finally:
        answers.close()


async def stream(
    request: web.Request,
    answers: AnswerStream,
    starts: list[Event],
    writer: ReplyWriter,
    ping_s: float,
    form: StreamForm,
) -> web.StreamResponse:
    """The answer in a stream. An error before its first event is raised, and becomes an HTTP
    error; a later one is sent in the stream, which ends properly all the same."""
    config = request.app[CONTEXT].config
    first = await next_within(answers, config.headers_after_s)
    sink = ClientSink(request, config, form)
    events = EventStream(writer, sink, form)
    pause_s = None if math.isinf(ping_s) else ping_s
    await events.run(send_all(events, answers, starts, first, pause_s))
    return sink.response


async def kept_stream(
    request: web.Request,
    conversation: Conversation,
    answers: AnswerStream,
    writer: ReplyWriter,
    ping_s: float,
    form: StreamForm,
) -> web.StreamResponse:
    """The answer in a stream that goes on when the client leaves, and that its conversation finds
    again. Errors are as those of `stream`."""
    context = request.app[CONTEXT]
    pause_s = None if math.isinf(ping_s) else ping_s

    async def write(kept: ConversationStream) -> None:
        with closing(answers), context.waited_for(), context.models.hold(answers.model):
            starts: list[Event] = [*answers.start()]
            first = await next_within(answers, context.config.headers_after_s)
            events = EventStream(writer, kept, form)
            await events.run(send_all(events, answers, starts, first, pause_s))

    kept = context.streams.open(conversation, form, write)
    # A little longer than `write` waits, so that an early error is seen before the headers go out.
    patience_s = 1.5 * context.config.headers_after_s
    return await replay(request, context.config, kept, patience_s=patience_s)


async def send_all(
    stream: EventStream,
    answers: AnswerStream,
    starts: list[Event],
    events: list[Event] | None,
    ping_s: float | None,
) -> None:
    """Sends every event of a stream; `events` is what has been read already."""
    await stream.send(starts)
    while True:
        if events is None:
            await stream.ping()
        else:
            await stream.send(events)
            if events and type(events[-1]) is Usage:
                return
        events = await next_or_ping(answers, ping_s)


async def next_or_ping(answers: AnswerStream, ping_s: float | None) -> list[Event] | None:
    """The next events, or None when it is time to show that the stream lives: after `ping_s`, or
    sooner while the engine is not ready, as proxies do not wait for that. None is never."""
    waited_s = 0.0
    while ping_s is not None:
        pause_s = min(ping_s - waited_s, AWAY_PING_S)
        events = await next_within(answers, pause_s)
        waited_s += pause_s
        if events is not None or waited_s >= ping_s or not answers.is_engine_ready:
            return events
    return await next_within(answers, None)


async def next_within(answers: AnswerStream, seconds: float | None) -> list[Event] | None:
    """The next events, or None if there are none within that time; None waits for ever."""
    try:
        async with asyncio.timeout(seconds):
            return await answers.next()
    except TimeoutError:
        return None
