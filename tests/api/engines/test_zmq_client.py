"""What only a client over ZeroMQ has to stand: engines that come, go and talk nonsense."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.engines.zmq_client import ZmqEngineClient
from dllama.errors import ClusterError, ConfigError, EngineBusy
from dllama.requests import Submit
from tests.api.engine_process import EngineProcess
from tests.api.engines.test_engine_client import drain, scripted
from tests.api.serving import run, until


def test_another_engine_process_takes_over(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/engine"

    async def body() -> None:
        client = ZmqEngineClient(endpoint)
        await client.start()
        with pytest.raises(EngineBusy, match="loading"):
            client.submit(Submit("early", [1]))
        for k in range(2):
            engine = scripted([10], max_len=10**9)
            process = EngineProcess(engine, endpoint)
            process.start()
            await until(lambda: client.state.state == "ready")
            outputs = client.submit(Submit(f"a{k}", [1]))
            await anext(outputs)
            await asyncio.to_thread(process.die)
            client.engine_died("it was killed", is_restarting=True)
            with pytest.raises(ClusterError, match="killed"):
                await drain(outputs)
        with pytest.raises(ClusterError):
            await client.stats()
        await client.close()

    run(body)


def test_a_request_that_could_not_be_sent_may_come_again(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/engine"

    async def body() -> None:
        client = ZmqEngineClient(endpoint)
        await client.start()
        process = EngineProcess(scripted([10]), endpoint)
        process.start()
        await until(lambda: client.state.state == "ready")
        await asyncio.to_thread(process.die)

        def is_refused() -> bool:
            try:
                client.submit(Submit("a", [1]))
            except EngineBusy:
                return True
            client.abort("a")
            return False

        await until(is_refused)
        with pytest.raises(EngineBusy, match="cannot be reached"):
            client.submit(Submit("a", [1]))
        await client.close()

    run(body)


def test_an_engine_that_talks_nonsense_is_not_listened_to(tmp_path: Path, caplog) -> None:
    import zmq

    endpoint = f"ipc://{tmp_path}/engine"

    async def body() -> None:
        client = ZmqEngineClient(endpoint)
        await client.start()
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(endpoint)
            socket.send(b"\xc1 nonsense")
            await until(lambda: "dropped" in caplog.text)
        process = EngineProcess(scripted([10]), endpoint)
        process.start()
        await until(lambda: client.state.state == "ready")
        assert len((await drain(client.submit(Submit("a", [1], max_tokens=3))))[0]) == 3
        process.die()
        await client.close()

    run(body)


def test_an_endpoint_that_cannot_be_had_is_a_sentence(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(ConfigError, match="cannot be opened"):
            await ZmqEngineClient(f"ipc://{tmp_path}/no/such/folder/engine").start()

    run(body)
