"""Ollama's API: the handlers of /api/... over the same engine."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from aiohttp import web

from api.answers.plan import chat_plan, text_plan
from api.body import json_response, read_object
from api.config import AnswerDefaults
from api.context import CONTEXT
from api.errors import ApiError
from api.model_use import use_model
from api.models.pool import ModelPool
from api.replies.event_stream import NDJSON
from api.replies.logprobs import LogprobWriter
from api.replies.ollama import LOAD, UNLOAD, ChatWriter, GenerateWriter
from api.replies.ollama_models import LATEST, described, listed, listed_entry, running, tagged
from api.requests.fields import Body, Field, boolean, string
from api.requests.generation import MODEL
from api.requests.ollama.bodies import OPTIONS, parse_ollama_chat, parse_ollama_prompt
from api.requests.ollama.options import unknown_options
from api.requests.ollama.prompting import prompt_of, thoughtful
from api.requests.prompts.conversation import ChatRequest
from api.requests.prompts.prompting import sampling_of
from api.requests.sampling import LogprobStyle
from api.routes.answering import answer, check_ready
from api.routes.chat import answer_chat, with_prefill
from api.served_model import ServedModel

API_VERSION = "0.12.11"  # of Ollama: the first with all that is answered here; clients compare it
KEPT_LOADED = {"X-Dllama-Ignored": "keep_alive"}  # nothing is unloaded before the server stops

NAME = Field(("model", "name"), string, None)
VERBOSE = Field(("verbose",), boolean, False)


def known_name(request: web.Request, name: str | None) -> str | None:
    """Returns the name of a model, which may have the tag that every name has in Ollama."""
    if name and not request.app[CONTEXT].models.knows(name):
        name = name.removesuffix(LATEST)
    return name or None


async def read(request: web.Request) -> tuple[Body, str | None, AnswerDefaults]:
    """Returns a body, the name of its model, and what it means where it says nothing; options
    without a meaning are told."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    name = known_name(request, MODEL.of(body))
    unknown = unknown_options(OPTIONS.of(body))
    context.left_out.tell(request, [f"options.{name}" for name in unknown])
    return body, name, context.models.defaults_of(name)


def logprobs_of(model: ServedModel) -> LogprobWriter:
    return LogprobWriter(LogprobStyle.CHAT, model.tokenizer, is_post=False)


async def load_answer(
    request: web.Request, name: str | None, writer: GenerateWriter, keep_s: float | None
) -> web.Response:
    """Answers a request without a prompt, which loads a model or unloads it. A server's only model
    stays loaded for as long as it runs, which is told in a header."""
    models = request.app[CONTEXT].models
    if keep_s != 0:
        await use_model(request, name, keep_s=keep_s)
        return json_response(writer.loaded(LOAD))
    if isinstance(models, ModelPool):
        models.unload(models.entry(name).name)
        return json_response(writer.loaded(UNLOAD))
    async with models.use(name):
        return json_response(writer.loaded(UNLOAD), headers=KEPT_LOADED)


async def chat(request: web.Request) -> web.StreamResponse:
    with request.app[CONTEXT].generation():
        body, name, defaults = await read(request)
        asked = parse_ollama_chat(body, defaults.fields)
        answer_id = f"ollama-{uuid.uuid4().hex}"
        if asked.conversation is None:
            known = await request.app[CONTEXT].models.shown(name)
            writer = ChatWriter(answer_id, tagged(known), logprobs_of(known))
            return await load_answer(request, name, writer, asked.keep_s)
        streams = asked.generation.stream
        model = await use_model(request, name, keep_s=asked.keep_s, streams=streams)
        writer = ChatWriter(answer_id, tagged(model), logprobs_of(model))
        conversation = thoughtful(model, asked.conversation, asked.think)
        wanted = with_prefill(ChatRequest(asked.generation, conversation), body, model)
        return await answer_chat(request, model, wanted, writer, NDJSON)


async def generate(request: web.Request) -> web.StreamResponse:
    with request.app[CONTEXT].generation():
        body, name, defaults = await read(request)
        asked = parse_ollama_prompt(body, defaults.fields)
        answer_id = f"ollama-{uuid.uuid4().hex}"
        if asked.is_empty:
            known = await request.app[CONTEXT].models.shown(name)
            writer = GenerateWriter(answer_id, tagged(known), logprobs_of(known))
            return await load_answer(request, name, writer, asked.keep_s)
        streams = asked.generation.stream
        model = await use_model(request, name, keep_s=asked.keep_s, streams=streams)
        wanted = await check_ready(request, model, asked.generation)
        asked = replace(
            asked, generation=wanted,
            conversation=thoughtful(model, asked.conversation, asked.think),
        )  # fmt: skip
        prompt = await prompt_of(model, asked)
        is_chat = not (asked.is_raw or asked.template or asked.suffix)
        plan = text_plan(wanted.form)
        if is_chat:
            plan = chat_plan(model, asked.conversation, wanted.form, prompt.text)
        writer = GenerateWriter(
            answer_id,
            tagged(model),
            logprobs_of(model),
            prompt.ids if is_chat or asked.template else None,
        )
        samplings = sampling_of(model, wanted)
        return await answer(
            request, model, wanted, [prompt.ids], samplings, writer, plan, form=NDJSON
        )


async def tags(request: web.Request) -> web.Response:
    models = request.app[CONTEXT].models
    if isinstance(models, ModelPool):
        here = [entry for entry in models.entries() if entry.is_downloaded]
        rows = [(models.text_of(entry), entry) for entry in here]
        return json_response(
            {"models": [listed(m) if m is not None else listed_entry(e) for m, e in rows]}
        )
    return json_response({"models": [listed(model) for model in models.all()]})


async def ps(request: web.Request) -> web.Response:
    """The models that are loaded, and until when they stay so."""
    models = request.app[CONTEXT].models
    ready = [model for model in models.all() if model.engine.state.state == "ready"]
    if not isinstance(models, ModelPool):
        return json_response({"models": [running(model) for model in ready]})
    left_s = {model.id: models.expires_in_s(models.entry(model.id)) for model in ready}
    ready.sort(key=lambda model: -left_s[model.id])
    return json_response({"models": [running(model, left_s[model.id]) for model in ready]})


async def show(request: web.Request) -> web.Response:
    body = await read_object(request, request.app[CONTEXT].config)
    name, is_verbose = known_name(request, NAME.of(body)), VERBOSE.of(body)
    model = await request.app[CONTEXT].models.shown(name)
    if not is_verbose:
        return json_response(described(model, is_verbose=False))
    told = await asyncio.to_thread(described, model, is_verbose=True)  # it reads the vocabulary
    return json_response(told)


async def version(request: web.Request) -> web.Response:
    """The version of Ollama whose API this is, and of this server."""
    fingerprint = request.app[CONTEXT].config.fingerprint
    return json_response({"version": API_VERSION, "server": fingerprint})


async def no_management(request: web.Request) -> web.Response:
    raise ApiError(
        501,
        f"This server does not take {request.path:.100}: it makes no models. It downloads them "
        "with /api/pull, and dllama convert and dllama-root --quantize make others of them.",
        "not_supported_error",
        code="not_supported",
    )
