"""The supervisor of an engine process: one that cannot be started is told in a sentence, and an
engine that cannot be woken can be woken later."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from api.engines.zmq_client import ZmqEngineClient
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.server import engine_process as module
from dllama.cli.server.pulse import STILL_S
from dllama.cli.server.supervisor import MAX_QUICK, EngineSupervisor
from dllama.errors import ClusterError, EngineBusy
from dllama.logs.settings import LogSettings
from dllama.requests import Submit
from tests.api.serving import run, until
from tests.toy_models import write_toy

NO_PROGRAM = "/no/such/program"


@asynccontextmanager
async def supervised(
    model: Path, folder: Path, *, still_s: float = STILL_S
) -> AsyncIterator[tuple[ZmqEngineClient, EngineSupervisor]]:
    endpoint = f"ipc://{folder}/engine"
    client = ZmqEngineClient(endpoint)
    supervisor = EngineSupervisor(
        EngineSettings(str(model), 1), endpoint, client, LogSettings(), still_s=still_s
    )
    await client.start()
    task = asyncio.create_task(supervisor.run())
    try:
        yield client, supervisor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def cannot_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "child_command", lambda name: [NO_PROGRAM])


def test_a_process_that_cannot_be_started_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cannot_start(monkeypatch)

    async def body() -> None:
        async with supervised(tmp_path / "none.gguf", tmp_path) as (client, _):
            await until(lambda: client.state.state == "failed")
            assert client.state.detail == (
                "The engine's process cannot be started: No such file or directory."
            )

    run(body)


def test_an_engine_that_cannot_be_woken_sleeps_on(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.gguf")

    async def body() -> None:
        async with supervised(model, tmp_path) as (client, supervisor):
            await until(lambda: client.state.state == "ready")
            await supervisor.sleep()
            assert client.state.state == "sleeping" and (await client.stats())["world_size"] == 1
            with pytest.MonkeyPatch.context() as patch:
                cannot_start(patch)
                with pytest.raises(EngineBusy, match=r"started: No such file.*once more\.$"):
                    await supervisor.wake()
            model.rename(tmp_path / "away.gguf")
            with pytest.raises(EngineBusy, match=r"toy\.gguf"):
                await supervisor.wake()
            assert client.state.state == "sleeping" and (await client.stats())["world_size"] == 1
            (tmp_path / "away.gguf").rename(model)
            await supervisor.wake()
            assert client.state.state == "ready"
            await asyncio.gather(supervisor.sleep(), supervisor.wake())
            assert client.state.state == "ready", "one after the other"

    run(body)


def engines() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "dllama.cli.server.engine" in child.cmdline()]


def test_an_engine_that_stands_still_is_replaced_and_its_answer_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGSTOP in the middle of an answer: the server kills the process, and not a token differs."""
    model = write_toy(tmp_path / "toy.gguf", max_seq_len=2048)

    async def body() -> None:
        async with supervised(model, tmp_path, still_s=4.0) as (client, _):
            await until(lambda: client.state.state == "ready")

            async def answer(stop: bool) -> list[int]:
                tokens: list[int] = []
                async for output in client.submit(Submit("a", [1, 2, 3], max_tokens=1500)):
                    assert output.error is None
                    tokens += output.tokens
                    if stop and len(tokens) >= 10:
                        [engine] = engines()
                        engine.send_signal(signal.SIGSTOP)
                        stop = False
                return tokens

            wanted = await answer(False)
            assert len(wanted) == 1500 and client.restarts.total == 0
            assert await answer(True) == wanted
            assert client.restarts.total == 1

    run(body, limit_s=200)  # it loads twice
    assert "its process stood still for 4 s and was killed by SIGKILL" in caplog.text


# An engine's process that says how it is, brings a step or none, and ends.
BRIEF = """
import json, sys, time
import zmq
from cluster.wire.engine_messages import encode_message
from dllama.requests import EngineState, Output, StepDone
told = json.loads(sys.stdin.readline())
with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
    socket.connect(told["endpoint"])
    {says}
    time.sleep(0.3)
sys.exit(3)
"""
READY = 'socket.send(encode_message(EngineState("ready", progress=1.0)))'
STEP = f'{READY}; socket.send(encode_message(StepDone([Output("nobody", [1])])))'


def starts(patch: pytest.MonkeyPatch, folder: Path, says: str) -> None:
    script = folder / "brief.py"
    script.write_text(BRIEF.replace("{says}", says))
    patch.setattr(module, "child_command", lambda name: [sys.executable, str(script)])
    root = str(Path(module.__file__).parents[3])
    patch.setattr(module, "child_environment", lambda: {**os.environ, "PYTHONPATH": root})


def test_an_engine_that_ends_before_it_is_ready_three_times_is_left_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts(monkeypatch, tmp_path, "pass")

    async def body() -> None:
        async with supervised(write_toy(tmp_path / "toy.gguf"), tmp_path) as (client, _):
            await until(lambda: client.state.state == "failed")
            assert client.restarts.total == MAX_QUICK - 1
            with pytest.raises(EngineBusy, match=r"exit code 3"):
                await anext(client.submit(Submit("a", [1])))

    run(body)


def test_a_request_that_ends_every_engine_is_refused_and_the_engine_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that were ready are started again however soon they end."""
    starts(monkeypatch, tmp_path, READY)

    async def body() -> None:
        async with supervised(write_toy(tmp_path / "toy.gguf"), tmp_path) as (client, _):
            await until(lambda: client.state.state == "ready")
            with pytest.raises(ClusterError, match=r"3 times in a row while this request ran"):
                await anext(client.submit(Submit("a", [1])))
            await until(lambda: client.restarts.total > MAX_QUICK + 1)
            await until(lambda: client.state.state == "ready")

    run(body)


def test_an_engine_that_has_worked_in_between_is_started_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts(monkeypatch, tmp_path, STEP)

    async def body() -> None:
        async with supervised(write_toy(tmp_path / "toy.gguf"), tmp_path) as (client, _):
            await until(lambda: client.restarts.total > MAX_QUICK)
            assert client.state.state in ("loading", "ready")

    run(body)
