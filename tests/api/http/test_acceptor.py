"""More connections than there are file descriptors for: said once, and service goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest

import api.http.serve
from api.http import listener
from api.http.acceptor import RETRY_S
from tests.api.http.test_listener import Serving
from tests.api.serving import run, until
from tests.ports import own_port
from tests.toy_models import write_toy

resource = pytest.importorskip("resource", reason="only POSIX limits descriptors")
ASK = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n" + b'{"prompt":"a"}'


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "api.http.acceptor"]


def test_idle_connections_make_room_for_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Silent ones, and one that has had its answer; but none whose answer is under way."""
    monkeypatch.setattr(api.http.serve, "room_for_connections", lambda: 3)
    monkeypatch.setattr(listener, "MIN_IDLE_S", 0.1)

    async def body() -> None:
        async with Serving("127.0.0.1") as url, aiohttp.ClientSession() as session:
            host, port = url.removeprefix("http://").split(":")
            first = await session.get(url + "/health")
            await first.read()
            silent = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
            async with asyncio.timeout(30), aiohttp.ClientSession() as other:
                reply = await other.post(url + "/v1/completions", json={"prompt": "a"})
                assert reply.status == 200 and await reply.read()
                assert await silent[0][0].read() == b""  # the oldest are closed first
                again = await session.get(url + "/health")
                assert again.status == 200
            for _, writer in silent:
                writer.close()

    run(body)
    [line] = told(caplog)
    assert line.startswith("3 connections are open, all that this process may have")
    assert "ulimit -n" in line


def test_an_answer_under_way_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.serve, "room_for_connections", lambda: 1)
    monkeypatch.setattr(listener, "MIN_IDLE_S", 0.0)

    async def body() -> None:
        async with Serving("127.0.0.1") as url, aiohttp.ClientSession() as session:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head, end = ASK[:-1], ASK[-1:]  # its body trickles in: the request is at work
            writer.write(head)
            await writer.drain()
            waiting = asyncio.create_task(session.get(url + "/health"))
            await asyncio.sleep(3 * RETRY_S)
            assert not waiting.done()
            writer.write(end)
            async with asyncio.timeout(30):
                assert b" 200 " in await reader.readline()
                writer.close()
                assert (await waiting).status == 200

    run(body)


def test_no_descriptor_for_a_connection_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def body() -> None:
        async with Serving("127.0.0.1") as url:
            host, port = url.removeprefix("http://").split(":")
            client = socket.socket()
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            taken = []
            try:
                try:  # the numbers below may have gaps
                    while True:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                await loop.sock_connect(client, (host, int(port)))
                await loop.sock_sendall(client, ASK)
                await until(lambda: bool(told(caplog)))
                await asyncio.sleep(3 * RETRY_S)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for each in taken:
                    os.close(each)
            async with asyncio.timeout(30):
                assert b" 200 " in await loop.sock_recv(client, 100)
            client.close()

    with caplog.at_level(logging.WARNING):
        run(body)
    [line] = told(caplog)
    assert line.startswith("no connection can be accepted (Too many open files)")


def test_a_root_of_64_descriptors_serves_beside_90_idle_connections(tmp_path: Path) -> None:
    port, log = own_port(), tmp_path / "log"
    words = [sys.executable, "-m", "dllama", "root", "-m", str(write_toy(tmp_path / "toy.gguf"))]
    limited = f"ulimit -n 64; exec {shlex.join(words)} --port {port} --threads 1"
    with log.open("wb") as out:
        program = subprocess.Popen(
            ["sh", "-c", limited], stderr=out, stdin=subprocess.DEVNULL, stdout=out
        )
    idle: list[socket.socket] = []
    try:
        url = f"http://127.0.0.1:{port}"
        until_s = time.monotonic() + 120
        while b"is served at" not in log.read_bytes():
            assert time.monotonic() < until_s and program.poll() is None, log.read_text()
            time.sleep(0.1)
        idle = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(90)]
        headers = {"Content-Type": "application/json"}
        ask = urllib.request.Request(url + "/v1/completions", b'{"prompt":"a"}', headers)
        with urllib.request.urlopen(ask, timeout=60) as reply:
            assert reply.status == 200
        for each in idle:
            each.close()
        with urllib.request.urlopen(url + "/health", timeout=60) as reply:
            assert reply.status == 200
    finally:
        for each in idle:
            each.close()
        program.terminate()
        program.wait(30)
    text = log.read_text()
    assert text.count("ulimit -n") == 1 and "Traceback" not in text, text
