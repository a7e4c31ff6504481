"""Listening and stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import aiohttp
import pytest

from api.app import build_app
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.listener import display_host
from api.http.serve import serve
from api.models.fixed import FixedModels
from dllama.errors import ConfigError
from tests.api.serving import run, says, served, until
from tests.scripted_runner import ScriptedEngine


def app_for(engine: ScriptedEngine):
    return build_app(FixedModels([served(InProcessEngineClient(engine))]), ApiConfig())


def test_a_port_in_use_is_a_sentence_and_starts_nothing() -> None:
    async def body() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"{port}.*another program.*--port"):
                await serve(app_for(ScriptedEngine(says("a"))), ["127.0.0.1"], port)

    run(body)


def test_other_addresses_that_cannot_be_had() -> None:
    async def body() -> None:
        for host, port in (("203.0.113.1", 8080), ("127.0.0.1", 70_000), ("no such host", 80)):
            with pytest.raises(ConfigError, match=r"\.$"):
                await serve(app_for(ScriptedEngine(says("a"))), [host], port)

    run(body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish_and_takes_no_more(number) -> None:
    gate = threading.Semaphore(1)
    engine = ScriptedEngine(says("to the end"), gate=gate)

    async def body() -> None:
        urls: list[str] = []
        server = asyncio.create_task(
            serve(app_for(engine), ["127.0.0.1"], 0, on_ready=urls.append, drain_s=20)
        )
        await until(lambda: bool(urls))
        request = {"prompt": "a", "stream": True}
        async with (
            aiohttp.ClientSession() as session,
            session.post(urls[0] + "/v1/completions", json=request) as response,
        ):
            await response.content.readline()
            os.kill(os.getpid(), number)
            while (health := await session.get(urls[0] + "/health")).status == 200:
                await asyncio.sleep(0.01)
            assert (health.status, (await health.json())["status"]) == (503, "stopping")
            late = await session.post(urls[0] + "/v1/completions", json={"prompt": "a"})
            assert late.status == 503 and int(late.headers["Retry-After"]) >= 1
            assert not server.done()
            gate.release(1000)
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
            async with asyncio.timeout(10):
                await server
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(urls[0] + "/health")

    run(body)


def test_what_does_not_finish_in_time_is_aborted() -> None:
    engine = ScriptedEngine(says("x", ends=False), max_len=10**9)

    async def body() -> None:
        urls: list[str] = []
        stop = asyncio.Event()
        server = asyncio.create_task(
            serve(app_for(engine), ["127.0.0.1"], 0, stop=stop, on_ready=urls.append, drain_s=0.1)
        )
        await until(lambda: bool(urls))
        request = {"prompt": "a", "stream": True}
        async with (
            aiohttp.ClientSession() as session,
            session.post(urls[0] + "/v1/completions", json=request) as response,
        ):
            whole = asyncio.create_task(
                session.post(urls[0] + "/v1/completions", json={"prompt": "a"})
            )
            await response.content.readline()
            await until(lambda: len(engine.running) == 2)
            stop.set()
            rest = (await response.read()).split(b"\n\n")
            assert b"The server has stopped" in rest[-3] and rest[-2] == b"data: [DONE]"
            assert (await whole).status == 503
        await server
        assert not engine.running

    run(body)


def test_hosts_as_urls_have_them() -> None:
    shown = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "::1": "[::1]", "box": "box"}
    for host, wanted in shown.items():
        assert display_host(host) == wanted
