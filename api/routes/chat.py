"""Chats and text completions, by OpenAI's and Anthropic's routes: the life of a request, read from
the top. /v1/responses, which remembers what it answers, is in responses.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from api.answers.plan import chat_plan, text_plan
from api.body import json_response, read_object, read_request
from api.config import ApiConfig
from api.context import CONTEXT
from api.model_use import use_model, use_model_for
from api.replies.anthropic import EVENTS, AnthropicWriter
from api.replies.event_stream import SSE, ReplyWriter, StreamForm
from api.replies.made import Made
from api.replies.openai import ChatWriter, TextWriter
from api.requests.anthropic import parse_messages
from api.requests.fields import Body
from api.requests.generation import GenerationRequest
from api.requests.openai import parse_chat, parse_completion
from api.requests.prompts.conversation import ChatRequest
from api.requests.prompts.prompting import (
    chat_prompt,
    effort_left_out,
    encode,
    render,
    sampling_of,
    text_ids,
)
from api.routes.answering import answer, check_ready, new_id
from api.served_model import ServedModel
from dllama.errors import RequestError
from dllama.requests import SamplingParams


async def chat_completions(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_request(request)
        asked = parse_chat(body, request.path)
        model = await use_model_for(request, asked.generation)
        asked = with_prefill(asked, body, model)
        writer = ChatWriter(new_id("chatcmpl"), model, asked.generation, context.config)
        return await answer_chat(request, model, asked, writer)


async def messages(request: web.Request) -> web.StreamResponse:
    """Anthropic's Messages API."""
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_request(request)
        asked = parse_messages(body, request.path)
        model = await use_model_for(request, asked.generation)
        asked = with_prefill(asked, body, model)
        writer = AnthropicWriter(f"msg_{uuid.uuid4().hex}", model.id)
        return await answer_chat(request, model, asked, writer, EVENTS)


def with_prefill(asked: ChatRequest, body: Body, model: ServedModel) -> ChatRequest:
    """Returns the request with a last message of the assistant taken as a whole one, where the
    model's flags say so and the request says nothing else."""
    if model.defaults.prefills or body.get("continue_final_message") is not None:
        return asked
    return replace(asked, conversation=replace(asked.conversation, is_continued=False))


async def answer_chat(
    request: web.Request,
    model: ServedModel,
    asked: ChatRequest,
    writer: ReplyWriter,
    form: StreamForm = SSE,
) -> web.StreamResponse:
    """Answers a chat, whatever API it came by, in the words of the writer."""
    conversation = asked.conversation
    request.app[CONTEXT].left_out.tell(request, effort_left_out(model, conversation))
    wanted = await check_ready(request, model, asked.generation)
    await conversation.tools.check()
    prompt = await chat_prompt(model, conversation, wanted.options)
    if wanted.options.n_keep is None:
        wanted = replace(wanted, options=replace(wanted.options, n_keep=prompt.n_system))
    plan = chat_plan(model, conversation, wanted.form, prompt.text)
    samplings = sampling_of(model, wanted)
    if isinstance(writer, ChatWriter):
        made = made_of(model, wanted, [prompt.ids], samplings, is_chat=True)
        explain(writer, made, request.app[CONTEXT].config)
    return await answer(request, model, wanted, [prompt.ids], samplings, writer, plan, form=form)


def made_of(
    model: ServedModel,
    wanted: GenerationRequest,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[SamplingParams],
    *,
    is_chat: bool,
) -> Made:
    n_predict = -1 if wanted.max_tokens is None else wanted.max_tokens
    return Made(model, wanted, prompts, samplings, n_predict, is_chat)


def explain(writer: ChatWriter, made: Made, config: ApiConfig) -> None:
    """Has the answer tell how it was made, if the request or the server's flags want that."""
    if made.wanted.is_verbose or config.is_verbose:
        writer.explain(made)


async def completions(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    with context.generation():
        body = await read_request(request)
        wanted, texts = parse_completion(body, request.path)
        if len(texts) * wanted.n > context.config.max_sequences:
            raise RequestError(
                f"`prompt` asks for {len(texts)} prompts times {wanted.n} answers, but a request "
                f"may have {context.config.max_sequences} in all; send several requests.",
                param="prompt",
            )
        model = await use_model_for(request, wanted)
        wanted = await check_ready(request, model, wanted)
        prompts = [await text_ids(model, text, options=wanted.options) for text in texts]
        samplings = sampling_of(model, wanted)
        writer = TextWriter(new_id("cmpl"), model, wanted, context.config)
        explain(writer, made_of(model, wanted, prompts, samplings, is_chat=False), context.config)
        plan = text_plan(wanted.form)
        return await answer(request, model, wanted, prompts, samplings, writer, plan)


async def count_tokens(request: web.Request, asked: ChatRequest, body: Body) -> int:
    """Tokens of a chat's prompt; needs a template and a tokenizer but no engine."""
    context = request.app[CONTEXT]
    context.left_out.tell(request, asked.generation.left_out)
    model = await use_model(request, asked.generation.model)
    asked = with_prefill(asked, body, model)
    ids = await asyncio.to_thread(lambda: encode(model, render(model, asked.conversation)))
    return len(ids)


async def chat_input_tokens(request: web.Request) -> web.Response:
    body = await read_object(request, request.app[CONTEXT].config)
    n_tokens = await count_tokens(request, parse_chat(body, request.path), body)
    return json_response({"object": "response.input_tokens", "input_tokens": n_tokens})


async def messages_count_tokens(request: web.Request) -> web.Response:
    """{"input_tokens": n} for a body that /v1/messages would take; max_tokens may be missing."""
    body = await read_object(request, request.app[CONTEXT].config)
    n_tokens = await count_tokens(request, parse_messages(body, request.path), body)
    return json_response({"input_tokens": n_tokens})
