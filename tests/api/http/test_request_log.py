"""Each request has an id, in its answer, in every line about it, in the engine; and its times."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from api.config import ApiConfig
from dllama.logs.lines import JsonLines
from tests.api.models.scripted_source import ScriptedSource
from tests.api.serving import (
    StepwiseClient,
    ask,
    run,
    says,
    serving_engine,
    serving_models,
    until,
)
from tests.scripted_runner import ScriptedEngine

SECRET = "what nobody else may read"
HI = [{"role": "user", "content": SECRET}]
MADE = re.compile(r"req_[0-9a-f]{32}")


class Lines(logging.Handler):
    """Keeps what a JSON log would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines({}))
        self.told: list[dict] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(json.loads(self.format(record)))


@contextmanager
def logged() -> Iterator[list[dict]]:
    """Everything that our modules log meanwhile."""
    handler, loggers = Lines(), [logging.getLogger(name) for name in ("api", "dllama")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield handler.told
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def timing(header: str) -> dict[str, float]:
    parts = (part.partition(";dur=") for part in header.split(", "))
    return {name: float(duration) for name, _, duration in parts}


def test_an_id_goes_with_the_request_into_the_engine_and_every_line() -> None:
    engine = ScriptedEngine(says("fine"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            asked = {"messages": HI, "n": 2}
            reply = await server.post(
                "/v1/chat/completions", asked, headers={"X-Request-Id": "trace-7"}
            )
            assert reply.status == 200 and reply.headers["X-Request-Id"] == "trace-7"

    with logged() as lines:
        run(body)
    assert [submit.request_id for submit in engine.submitted] == ["trace-7"] * 2
    told = [line for line in lines if line.get("request_id") == "trace-7"]
    assert {line["logger"] for line in told} == {
        "dllama.engine.request_log",
        "api.http.request_log",
    }
    [last] = [line for line in told if line["logger"] == "api.http.request_log"]
    assert (last["status"], last["path"], last["model"]) == (200, "/v1/chat/completions", "toy")
    assert last["answer_tokens"] > 0 and last["decode_ms"] >= 0 and last["level"] == "info"
    assert SECRET not in json.dumps(lines) and "fine" not in json.dumps(lines)


def test_the_id_is_in_every_answer_and_ids_that_could_harm_are_replaced() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a")), ApiConfig(api_keys=("k",))) as server:
            key = {"Authorization": "Bearer k"}
            for path, status in (("/health", 200), ("/no/such", 401), ("/v1/models", 401)):
                reply = await server.get(path)
                assert reply.status == status and MADE.fullmatch(reply.headers["X-Request-Id"])
            for bad in ("a b", "a" * 129, 'x"', "<script>"):
                reply = await server.get("/v1/models", headers={**key, "X-Request-Id": bad})
                assert MADE.fullmatch(reply.headers["X-Request-Id"])
            ids = {(await server.get("/health")).headers["X-Request-Id"] for _ in range(3)}
            assert len(ids) == 3
            page = {"Origin": "http://a.example", **key}
            shown = (await server.get("/v1/models", headers=page)).headers
            exposed = shown["Access-Control-Expose-Headers"].split(", ")
            assert {"X-Request-Id", "Server-Timing", "X-Dllama-Ignored"} == set(exposed)

    run(body)


def test_clients_of_anthropic_find_it_where_they_look_for_it() -> None:
    bad = ask(ScriptedEngine(says("a")), lambda server: server.post("/v1/messages", {}))
    assert bad.status == 400 and MADE.fullmatch(bad.headers["request-id"])
    assert bad.json["request_id"] == bad.headers["request-id"] == bad.headers["X-Request-Id"]
    asked = {"messages": HI, "max_tokens": 5, "stream": True}
    good = ask(ScriptedEngine(says("a")), lambda server: server.post("/v1/messages", asked))
    assert MADE.fullmatch(good.headers["request-id"])


def test_times_of_a_whole_answer_and_what_a_stream_knows_of_them() -> None:
    engine = ScriptedEngine(says("a long answer"))
    whole = ask(engine, lambda server: server.chat())
    assert list(timing(whole.headers["Server-Timing"])) == ["queue", "load", "prompt", "decode"]
    stepwise = ScriptedEngine(says("a long answer"))  # so that it has not ended yet
    streamed = ask(stepwise, lambda server: server.chat(stream=True), StepwiseClient)
    assert list(timing(streamed.headers["Server-Timing"])) == ["queue", "load", "prompt"]
    kept = {"X-Conversation-Id": "one"}
    again = ask(
        engine,
        lambda server: server.post(
            "/v1/chat/completions", {"messages": HI, "stream": True}, headers=kept
        ),
    )
    assert "prompt" in timing(again.headers["Server-Timing"])
    assert "Server-Timing" not in ask(engine, lambda server: server.get("/health")).headers


def test_a_request_that_waits_for_a_model_says_for_how_long() -> None:
    async def body() -> None:
        source = ScriptedSource("a", "b")
        source.may_load.clear()
        async with serving_models(source.pool(1)) as server:
            asked = server.post("/v1/completions", {"model": "a", "prompt": "x"})
            waiting = asyncio.create_task(asked)
            await until(lambda: bool(source.running))
            await asyncio.sleep(0.05)
            source.may_load.set()
            first = timing((await waiting).headers["Server-Timing"])
            assert first["load"] >= 50
            second = await server.post("/v1/completions", {"model": "a", "prompt": "x"})
            assert timing(second.headers["Server-Timing"])["load"] == 0.0

    run(body)


def test_polls_are_told_in_detail_only_and_a_client_that_leaves_is_told() -> None:
    async def body() -> None:
        gate = threading.Semaphore(0)
        engine = ScriptedEngine(says("never"), gate=gate)
        async with serving_engine(engine) as server:
            await server.get("/health")
            with pytest.raises(TimeoutError):
                await server.post(
                    "/v1/completions", {"prompt": "x"}, timeout=aiohttp.ClientTimeout(0.2)
                )
            await until(lambda: bool(engine.aborted))

    with logged() as lines:
        run(body)
    told = [line for line in lines if line["logger"] == "api.http.request_log"]
    assert [(line["path"], line["level"], line["status"]) for line in told] == [
        ("/health", "debug", 200), ("/v1/completions", "info", 499),
    ]  # fmt: skip
