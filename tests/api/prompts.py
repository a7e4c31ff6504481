"""Prompts as a server gives them out: /apply-template of a model with a template of one's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import cache

from api.answers.reasoning import tags_of
from api.engines.in_process import InProcessEngineClient
from api.served_model import ServedModel
from api.tools.dialects import dialect_of
from dllama.chat.chat_template import ChatTemplate
from tests.api.serving import Reply, run, says, served, serving
from tests.dllama.chat.conversations import NOW
from tests.scripted_runner import ScriptedEngine
from tests.shared_data import shared_file

SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


@cache
def source_of(name: str) -> str:
    """The source of a real template; the test that asks is skipped without it."""
    return shared_file(f"templates/{name}").read_text(encoding="utf-8")


def model_with(source: str, engine: ScriptedEngine | None = None) -> ServedModel:
    """A model with this template, which is NOW."""
    template = ChatTemplate(source, now=now, **SPECIALS)
    return replace(
        served(InProcessEngineClient(engine or ScriptedEngine(says("a")))),
        chat_template=template,
        tool_dialect=dialect_of(template.sources),
        think_tags=tags_of(source),
    )


def now() -> datetime:
    return NOW


def apply_template(source: str, *bodies: dict) -> list[Reply]:
    """The replies to bodies of /apply-template, from a server with this template."""
    replies: list[Reply] = []

    async def body() -> None:
        async with serving(model_with(source)) as server:
            for sent in bodies:
                replies.append(await server.post("/apply-template", sent))

    run(body)
    return replies


def prompts(source: str, *bodies: dict) -> list[str]:
    """The prompts of bodies that are in order."""
    replies = apply_template(source, *bodies)
    assert [reply.status for reply in replies] == [200] * len(bodies), replies
    return [reply.json["prompt"] for reply in replies]
