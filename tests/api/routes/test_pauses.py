"""Streams while the engine is away: they are kept alive, and go on where they stood."""

from __future__ import annotations

import asyncio
import threading

import orjson
import pytest

from api.config import ApiConfig
from api.context import CONTEXT
from api.routes import answering
from tests.api.serving import Server, run, says, serving_engine, until
from tests.scripted_runner import ScriptedEngine

HI = [{"role": "user", "content": "Hi"}]
COMMENT = b":\n\n"
STREAMS = {
    "/v1/completions": ({"prompt": "Hi"}, COMMENT),
    "/v1/chat/completions": ({"messages": HI}, COMMENT),
    "/completion": ({"prompt": "Hi"}, COMMENT),
    "/v1/responses": ({"model": "toy", "input": "Hi"}, COMMENT),
    "/v1/messages": (
        {"model": "toy", "messages": HI, "max_tokens": 100},
        b'event: ping\ndata: {"type":"ping"}\n\n',
    ),
}


def words(data: bytes) -> str:
    """The text of a stream of any API."""
    found = []
    for line in data.splitlines():
        if not line.startswith(b"data: {"):
            continue
        event = orjson.loads(line.removeprefix(b"data: "))
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta") or event.get("delta") or {}
        if isinstance(delta, dict):
            delta = delta.get("content") or delta.get("text") or ""
        found.append(choice.get("text") or event.get("content") or delta)
    return "".join(text for text in found if isinstance(text, str))


@pytest.mark.parametrize("route", STREAMS)
def test_a_stream_is_kept_alive_while_a_node_is_away(
    route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "AWAY_PING_S", 0.02)
    text = "One, two, three, four."
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(says(text), gate=gate)
    engine.runner.n_recover_failures = 10**9
    body, ping = STREAMS[route]

    async def main() -> None:
        async with serving_engine(engine, ApiConfig(ping_s=1000.0)) as server:
            seen = asyncio.create_task(read(server, route, body, ping, n_pings=3))
            await until(lambda: len(engine.running) == 1)
            for _ in range(4):
                gate.release()
            await until(lambda: engine.runner.n_steps == 4)
            engine.runner.loses_node = True
            gate.release(10**6)
            await until(seen_pings.is_set)
            engine.runner.n_recover_failures = 0
            assert words(await seen) == text

    seen_pings = threading.Event()

    async def read(server: Server, route: str, body: object, ping: bytes, n_pings: int) -> bytes:
        data = b""
        url = server.url + route
        async with server.session.post(url, json={**body, "stream": True}) as response:  # type: ignore[dict-item]
            assert response.status == 200
            async for chunk in response.content.iter_any():
                data += chunk
                if data.count(ping) >= n_pings:
                    seen_pings.set()
        return data

    run(main)


def test_a_request_that_comes_meanwhile_waits_and_whole_answers_too() -> None:
    engine = ScriptedEngine(says("Here I am."))
    engine.runner.n_recover_failures = 10**9

    async def main() -> None:
        async with serving_engine(engine) as server:
            engine.runner.loses_node = True
            first = asyncio.create_task(server.chat())
            await until(lambda: server_state(server) == "recovering")
            second = asyncio.create_task(server.complete("Hi"))
            health = await server.get("/health")
            assert (health.status, health.json["status"]) == (503, "recovering")
            stats = (await server.get("/stats")).json
            assert stats["state"] == "recovering" and stats["recovery"]["total"] == 0
            await until(lambda: len(engine.running) == 2)
            engine.runner.n_recover_failures = 0
            assert (await first).json["choices"][0]["message"]["content"] == "Here I am."
            assert (await second).json["choices"][0]["text"] == "Here I am."
            stats = (await server.get("/stats")).json
            assert stats["recovery"]["total"] == 1 and stats["recovery"]["seconds"] > 0
            assert stats["api"]["engine_restarts"] == {"total": 0, "seconds": 0.0}

    run(main)


def server_state(server: Server) -> str:
    return server.app[CONTEXT].models.all()[0].engine.state.state
