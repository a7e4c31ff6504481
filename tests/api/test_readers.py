"""Clients that leave, and clients that do not read: they cost nobody else anything."""

from __future__ import annotations

import asyncio
import socket
import threading

import orjson
import pytest

from api.config import ApiConfig
from tests.api.serving import MAX_SEQ_LEN, Server, run, says, serving_engine, until
from tests.scripted_runner import ScriptedEngine


async def send(server: Server, body: dict[str, object]) -> asyncio.StreamWriter:
    """Posts a completion over a socket of its own, and does not read the answer."""
    host, port = server.runner.addresses[0][:2]
    _, writer = await asyncio.open_connection(host, port)
    data = orjson.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return writer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_client_that_leaves_frees_its_sequences(stream, n, is_silent) -> None:
    gate = threading.Semaphore(0 if is_silent else 10**9)
    engine = ScriptedEngine(says("x", ends=False), max_len=10**9, gate=gate)

    async def body() -> None:
        async with serving_engine(engine) as server:
            writer = await send(server, {"prompt": "a", "stream": stream, "n": n})
            await until(lambda: len(engine.running) == n)
            writer.close()
            await until(lambda: not engine.running)
            assert len(engine.aborted) == n
            gate.release(1000)
            assert (await server.complete(max_tokens=2)).status == 200
            stats = (await server.get("/stats")).json
            assert stats["api"]["open_requests"] == 0

    run(body)


def test_a_client_that_resets_the_connection_frees_its_sequence() -> None:
    engine = ScriptedEngine(says("x", ends=False), max_len=10**9)

    async def body() -> None:
        async with serving_engine(engine) as server:
            writer = await send(server, {"prompt": "a", "stream": True})
            await until(lambda: len(engine.running) == 1)
            writer.transport.abort()
            await until(lambda: not engine.running)

    run(body)


def test_a_reader_that_takes_nothing_holds_up_nobody_and_is_given_up(caplog) -> None:
    caplog.set_level("INFO", logger="api")
    engine = ScriptedEngine(says("x" * 100, ends=False), max_len=10**9)

    async def body() -> None:
        config = ApiConfig(stall_timeout_s=0.3)
        async with serving_engine(engine, config) as server:
            host, port = server.runner.addresses[0][:2]
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.connect((host, port))
                data = orjson.dumps({"prompt": "a", "stream": True, "n": 8})
                head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}"
                deaf.sendall(head.encode() + b"\r\n\r\n" + data)
                await until(lambda: len(engine.running) == 8)
                for _ in range(5):
                    assert (await server.complete(max_tokens=5)).status == 200
                await until(lambda: not engine.running)
                web_server = server.runner.server
                assert web_server is not None
                # Of the deaf reader nothing is left, though it has not closed: one stays, of
                # those who were served meanwhile.
                await until(lambda: len(web_server.connections) == 1)
            assert len(engine.aborted) == 8

    run(body)
    assert "is gone: nothing was read for 0.3 s" in caplog.text


def test_a_pause_of_the_reader_loses_no_text() -> None:
    n = 200
    engine = ScriptedEngine(says("Q" * n, ends=False), max_len=MAX_SEQ_LEN)

    async def body() -> None:
        async with serving_engine(engine) as server:
            url = server.url + "/v1/completions"
            request = {"prompt": "a", "stream": True, "max_tokens": n}
            async with server.session.post(url, json=request) as response:
                data = await response.content.readline()
                await until(lambda: bool(engine.submitted) and not engine.running)
                data += await response.read()
            assert data.count(b"Q") == n
            assert data.endswith(b"data: [DONE]\n\n")

    run(body)
