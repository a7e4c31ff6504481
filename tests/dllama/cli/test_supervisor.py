"""An engine process that cannot be started at all."""

from __future__ import annotations

import asyncio

import pytest

from api.engines.zmq_client import ZmqEngineClient
from dllama.cli import supervisor
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.supervisor import EngineSupervisor


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "child_command", lambda module: ["/no/such/python"])

    async def body() -> None:
        client = ZmqEngineClient("inproc://nowhere")
        settings = EngineSettings(model="m.gguf", threads=1)
        async with asyncio.timeout(10):
            await EngineSupervisor(settings, "inproc://nowhere", client, "warning").run()
        assert client.state.state == "failed"
        assert client.state.detail.startswith("The engine cannot be started: ")
        assert "/no/such/python" in client.state.detail

    asyncio.run(body())
