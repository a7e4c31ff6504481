"""The supervisor of an engine process: one that cannot be started is told in a sentence, and an
engine that cannot be woken can be woken later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.engines.zmq_client import ZmqEngineClient
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.server import engine_process as module
from dllama.cli.server.supervisor import EngineSupervisor
from dllama.errors import EngineBusy
from tests.api.serving import run, until
from tests.toy_models import write_toy

NO_PROGRAM = "/no/such/program"


@asynccontextmanager
async def supervised(
    model: Path, folder: Path
) -> AsyncIterator[tuple[ZmqEngineClient, EngineSupervisor]]:
    endpoint = f"ipc://{folder}/engine"
    client = ZmqEngineClient(endpoint)
    supervisor = EngineSupervisor(EngineSettings(str(model), 1), endpoint, client, "warning")
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
