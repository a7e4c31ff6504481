"""The engine dies again and again under one request: clients of every kind read what they would
have read without it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.config import ApiConfig
from api.engines.zmq_client import ZmqEngineClient
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from tests.api.engine_process import EngineProcess
from tests.api.serving import (
    ROOM,
    VOCAB_SIZE,
    Reply,
    Server,
    run,
    says,
    served,
    serving,
    tokenizer,
    until,
)
from tests.scripted_runner import ScriptedEngine

TEXT = "Hello wörld ☕! One, two; the END of it, and more."
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the ☕"}}\n</tool_call>'
HEADERS = {"X-Conversation-Id": "talk"}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"at": {"type": "string"}}}}}]  # fmt: skip

Ask = Callable[[Server], Awaitable[Reply]]
ASKED: dict[str, tuple[str, Ask]] = {
    "a stop string": (TEXT, lambda s: s.complete(stop=["ND of"], stream=True)),
    "log-probabilities": (TEXT, lambda s: s.complete(logprobs=2, stream=True)),
    "several": (TEXT, lambda s: s.complete(["One", "Two"], n=1, stream=False)),
    "a tool call": (CALL, lambda s: s.chat(tools=TOOLS, stream=True)),
    "whole": (TEXT, lambda s: s.chat(max_tokens=17)),
    "kept": (TEXT, lambda s: s.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "stream": True}, headers=HEADERS,
    )),
}  # fmt: skip
FIELDS = ("content", "text", "arguments", "finish_reason", "stop_reason", "logprobs")


def said(value: object) -> list[object]:
    """What of an answer has to be the same, in its order: no ids and no times."""
    if isinstance(value, list):
        return [item for one in value for item in said(one)]
    if not isinstance(value, dict):
        return []
    found: list[object] = []
    for key, inner in value.items():
        if key == "usage" and inner is not None:
            # What a request finds in the cache depends on what ran before it.
            counts = {k: v for k, v in inner.items() if k != "prompt_tokens_details"}
            found.append((key, counts))
        elif key in FIELDS and inner is not None and not (key == "content" and inner == []):
            found.append((key, inner))
        elif key not in ("created", "timings"):
            found += said(inner)
    return found


def joined(reply: Reply) -> list[object]:
    """The same of a whole answer or of a stream; the texts in one, however they were cut."""
    assert reply.status == 200
    is_stream = reply.headers["Content-Type"].startswith("text/event-stream")
    found = said(reply.events if is_stream else reply.json)
    texts: dict[str, str] = {}
    rest = []
    for entry in found:
        assert isinstance(entry, tuple)
        key, value = entry
        if isinstance(value, str) and key in ("content", "text", "arguments") and is_stream:
            texts[key] = texts.get(key, "") + value
        elif key == "logprobs" and is_stream:
            texts["logprobs"] = texts.get("logprobs", "") + str(value["tokens"])
        else:
            rest.append(entry)
    return [texts, *rest]


def own_masks() -> GrammarMasks:
    """An engine closes them when it ends."""
    return GrammarMasks(VocabularyBytes.of(tokenizer()), VOCAB_SIZE)


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_over_many_engines_is_that_of_one(name: str, tmp_path: Path) -> None:
    text, ask = ASKED[name]
    endpoint = f"ipc://{tmp_path}/engine"
    replies: list[Reply] = []
    lives: list[int] = []

    def engine(n_steps: int) -> ScriptedEngine:
        gate = threading.Semaphore(n_steps)
        return ScriptedEngine(
            says(text), gate=gate, constraints=own_masks(), max_len=ROOM, max_step_tokens=1024
        )

    async def body() -> None:
        for steps in ([10**6], [3, 1, 2, 4, 1, 10**6]):
            client = ZmqEngineClient(endpoint)
            model = replace(served(client), max_seq_len=ROOM)
            async with serving(model, config=ApiConfig(headers_after_s=0.01)) as server:
                process = EngineProcess(engine(steps[0]), endpoint)
                process.start()
                await until(lambda c=client: c.state.state == "ready")
                asking = asyncio.ensure_future(ask(server))
                for i in range(1, len(steps)):
                    goal = sum(steps[:i])
                    await until(lambda c=client, n=goal: c.n_steps == n)
                    await asyncio.to_thread(process.die)
                    client.engine_died("It was killed.", is_restarting=True)
                    process = EngineProcess(engine(steps[i]), endpoint)
                    process.start()
                replies.append(await asking)
                lives.append(client.restarts.total)
                if name == "kept":
                    kept = await server.get("/v1/stream", params={"conv_id": "talk"})
                    assert kept.data == replies[-1].data
            await asyncio.to_thread(process.die)

    run(body)
    assert lives == [0, 5]
    assert joined(replies[0]) == joined(replies[1])
