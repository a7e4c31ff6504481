"""A model without work sleeps, and wakes for the next request that sends something."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.serve import finish
from api.sleep import IdleSleep
from dllama.errors import EngineBusy
from tests.api.serving import Server, run, says, served, serving, until
from tests.scripted_runner import ScriptedEngine

AFTER_S = 0.2
LOOKS = (
    "/health", "/props", "/v1/models", "/models", "/metrics", "/stats", "/slots", "/",
    "/api/tags", "/api/ps", "/api/version",
)  # fmt: skip
QUESTIONS = (("/v1/streams/lookup", {"conversation_ids": ["a"]}), ("/api/show", {"model": "toy"}))


class ThreadSleeper:
    """Ends the engine's thread, and starts it again: what a supervisor does with a process."""

    def __init__(self, client: InProcessEngineClient) -> None:
        self._client = client
        self.n_sleeps = self.n_wakes = 0
        self.fails = False

    async def sleep(self) -> None:
        self.n_sleeps += 1
        self._client.engine_sleeps()
        await self._client.keep_figures()
        await self._client.close()

    async def wake(self) -> None:
        self.n_wakes += 1
        self._client.engine_wakes()
        await asyncio.sleep(0.05)  # so that others come meanwhile
        if self.fails:
            self._client.engine_sleeps()
            raise EngineBusy("a worker is away", retry_after_s=3.0)
        await self._client.start()


class Case:
    """A server whose model sleeps."""

    def __init__(self, server: Server, client: InProcessEngineClient, sleeper: ThreadSleeper):
        self.server, self.client, self.sleeper = server, client, sleeper

    async def is_sleeping(self) -> bool:
        reply = await self.server.get("/props")
        return bool(reply.json["is_sleeping"])

    async def until_asleep(self) -> None:
        await until(lambda: self.client.state.state == "sleeping")
        assert await self.is_sleeping()


@contextlib.asynccontextmanager
async def sleepy(
    engine: ScriptedEngine, config: ApiConfig | None = None, after_s: float = AFTER_S
) -> AsyncIterator[Case]:
    client = InProcessEngineClient(engine)
    sleeper = ThreadSleeper(client)
    sleep = IdleSleep(client, sleeper, after_s)
    async with serving(served(client), config=config, sleep=sleep) as server:
        yield Case(server, client, sleeper)


def test_who_only_looks_neither_wakes_it_nor_keeps_it_awake() -> None:
    async def body() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            server = case.server
            assert (await server.complete(max_tokens=4)).status == 200
            for _ in range(2):  # the second says rates since the first: none
                awake = (await server.get("/metrics")).data
            stats = (await server.get("/stats")).json
            while not case.sleeper.n_sleeps:  # as a page does that shows how the server is
                for path in LOOKS:
                    assert (await server.get(path)).status == 200
            await case.until_asleep()
            for path in LOOKS:
                assert (await server.get(path)).status == 200
            for path, asked in QUESTIONS:
                assert (await server.post(path, asked)).status == 200
            assert (await server.post("/api/pull", {"model": "toy"})).status == 501
            assert (await server.get("/api/ps")).json == {"models": []}
            assert (await server.get("/metrics")).data == awake
            asleep = (await server.get("/stats")).json
            assert asleep["state"] == "sleeping" and stats["state"] == "ready"
            assert asleep["sequences"] == stats["sequences"] and asleep["steps"] == stats["steps"]
            assert (await server.get("/health")).json == {"status": "ok"}
            assert case.sleeper.n_wakes == 0 and await case.is_sleeping()

    run(body)


def test_figures_are_never_missing_on_the_way_to_sleep() -> None:
    async def body() -> None:
        client = InProcessEngineClient(ScriptedEngine(says("a story")))
        await client.start()
        client.engine_sleeps()
        first, _ = await asyncio.gather(client.stats(), client.keep_figures())
        await client.close()
        assert first["steps"] == (await client.stats())["steps"] and first["steps"]

    run(body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/completion", {"prompt": "Once", "n_predict": 3}),
        ("/v1/embeddings", {"input": "Once"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/api/generate", {}),  # without a prompt, which loads a model
        ("/tokenize", {"content": "Once"}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_any_other_request_wakes_it_and_is_answered(path: str, body: dict[str, object]) -> None:
    async def whole() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            expected = await case.server.post(path, body)
            for n in (1, 2):
                await case.until_asleep()
                reply = await case.server.post(path, body)
                assert reply.status == expected.status == 200
                assert case.sleeper.n_wakes == n  # it may be asleep again by now

    run(whole)


def test_several_requests_wake_it_once() -> None:
    async def body() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            await case.until_asleep()
            replies = await asyncio.gather(*(case.server.chat() for _ in range(8)))
            assert [reply.status for reply in replies] == [200] * 8
            assert case.sleeper.n_wakes == 1

    run(body)


def test_a_failed_attempt_is_told_and_the_next_request_tries_again() -> None:
    async def body() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            await case.until_asleep()
            case.sleeper.fails = True
            replies = await asyncio.gather(*(case.server.chat() for _ in range(3)))
            for reply in replies:
                assert reply.status == 503 and reply.headers["Retry-After"] == "3"
                assert reply.error["message"] == "a worker is away"
            assert case.sleeper.n_wakes == 1 and await case.is_sleeping()
            case.sleeper.fails = False
            assert (await case.server.chat()).status == 200
            assert case.sleeper.n_wakes == 2

    run(body)


def test_it_does_not_sleep_while_an_answer_is_written() -> None:
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(says("a story"), gate=gate)

    async def body() -> None:
        async with sleepy(engine) as case:
            asking = asyncio.create_task(case.server.chat())
            await asyncio.sleep(3 * AFTER_S)
            assert case.sleeper.n_sleeps == 0
            gate.release(1000)
            assert (await asking).status == 200
            await case.until_asleep()

    run(body)


def test_a_client_that_leaves_does_not_stop_the_others_from_waking_it() -> None:
    async def body() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            await case.until_asleep()
            asking = [asyncio.create_task(case.server.chat()) for _ in range(2)]
            await until(lambda: case.sleeper.n_wakes == 1)
            assert (await case.server.get("/health")).status == 200, (
                "requests wait, none is refused"
            )
            asking[0].cancel()
            assert (await asking[1]).status == 200 and case.sleeper.n_wakes == 1

    run(body)


def test_a_server_that_stops_tells_those_who_wait_for_it_to_wake() -> None:
    async def body() -> None:
        async with sleepy(ScriptedEngine(says("a story"))) as case:
            await case.until_asleep()
            asking = [asyncio.create_task(case.server.chat()) for _ in range(2)]
            await until(lambda: case.sleeper.n_wakes == 1)
            await asyncio.sleep(0.01)
            await finish(case.server.app, 1.0)
            for reply in await asyncio.gather(*asking, case.server.chat()):
                assert reply.status == 503 and "stop" in reply.error["message"]
                assert reply.headers["Retry-After"] == "5"
            assert case.sleeper.n_wakes == 1

    run(body)


def test_requests_that_are_refused_anyway_do_not_wake_it() -> None:
    async def body() -> None:
        config = ApiConfig(api_keys=("secret",))
        async with sleepy(ScriptedEngine(says("a story")), config) as case:
            await until(lambda: case.client.state.state == "sleeping")
            assert (await case.server.chat()).status == 401
            key = {"Authorization": "Bearer secret"}
            assert (await case.server.post("/nowhere", {}, headers=key)).status == 404
            assert (await case.server.post("/health", {}, headers=key)).status == 405
            assert (await case.server.post("/v1/rerank", {}, headers=key)).status == 501
            assert case.sleeper.n_wakes == 0
            assert (await case.server.post("/tokenize", {"content": ""}, headers=key)).status == 200
            assert case.sleeper.n_wakes == 1

    run(body)
