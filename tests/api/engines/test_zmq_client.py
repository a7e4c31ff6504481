"""What only a client over ZeroMQ has to stand: engines that come, go and talk nonsense."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from api.engines.open_sequence import MAX_DEATHS, OpenSequence
from api.engines.zmq_client import ZmqEngineClient
from cluster.wire.engine_messages import encode_message
from dllama.errors import ClusterError, ConfigError, EngineBusy, RequestError
from dllama.nodes import NodesAction, NodesCall
from dllama.requests import (
    Abort,
    EngineState,
    FinishReason,
    Output,
    SessionAction,
    SessionCall,
    StepDone,
    Submit,
)
from tests.api.engine_process import EngineProcess
from tests.api.engines.test_engine_client import drain, scripted
from tests.api.serving import run, until
from tests.scripted_runner import FILLER_ID


@asynccontextmanager
async def started(folder: Path, **settings: float) -> AsyncIterator[ZmqEngineClient]:
    client = ZmqEngineClient(f"ipc://{folder}/engine", **settings)  # type: ignore[arg-type]
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def test_another_engine_process_goes_on_with_the_next_token(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/engine"

    async def body() -> None:
        async with started(tmp_path) as client:
            with pytest.raises(EngineBusy, match="loading"):
                client.submit(Submit("early", [1]))
            said = list(range(40))
            engines = [
                scripted(said, max_len=10**9, gate=threading.Semaphore(n)) for n in (0, 7, 9, 99)
            ]
            late = None
            for k, engine in enumerate(engines):
                process = EngineProcess(engine, endpoint)
                process.start()
                await until(lambda: client.state.state == "ready")
                if k == 0:
                    outputs = client.submit(Submit("a", [1], max_tokens=40))
                    await until(lambda: len(engines[0].submitted) == 1)
                if k == 3:
                    break
                await until(lambda e=engine, n=(0, 7, 9)[k]: e.runner.n_steps == n)
                await client.stats()
                await asyncio.to_thread(process.die)
                client.engine_died("it was killed", is_restarting=True)
                assert (client.state.state, client.state.queues) == ("loading", True)
                if late is None:
                    late = client.submit(Submit("b", [50, 51], max_tokens=3))
                    gone = client.submit(Submit("c", [60, 61], max_tokens=3))
                    client.abort("c")
            tokens, last = await drain(outputs)
            assert tokens == said and last.n_prompt == 1 and last.finish is FinishReason.LENGTH
            assert late is not None and (await drain(late))[0] == said[:3]
            assert [output async for output in gone] == []
            resumed = [e.submitted[0].resume for e in engines]
            assert resumed[0] is None and resumed[2] is not None
            assert resumed[2].tokens == said[: len(resumed[2].tokens)] and resumed[2].tokens
            assert client.restarts.total == 3 and client.n_open == 0
            process.die()

    run(body)


def test_what_an_engine_said_at_last_is_not_taken_for_a_word_of_the_next(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            engine = scripted([10, 11, 12], gate=threading.Semaphore(0))
            process = EngineProcess(engine, f"ipc://{tmp_path}/engine")
            process.start()
            await until(lambda: client.state.state == "ready")
            outputs = client.submit(Submit("a", [1], max_tokens=3))
            await until(lambda: len(engine.submitted) == 1)
            client.engine_died("it was killed", is_restarting=True)
            client._receive(EngineState("ready"))  # so that it is sent again
            client._receive(StepDone([Output("a", [10], n_prompt=1)]))  # comes late
            assert engine.gate is not None
            engine.gate.release(99)
            assert (await drain(outputs))[0][:1] == [10]
            assert [submit.id for submit in engine.submitted] == ["a", "a+1"]
            process.die()

    run(body)


def test_a_request_that_cannot_be_sent_waits_for_the_next_engine(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            for said in ([10], [20]):
                process = EngineProcess(scripted(said), f"ipc://{tmp_path}/engine")
                process.start()
                await until(lambda: client.state.state == "ready")
                if said == [10]:
                    await asyncio.to_thread(process.die)
                    await until(lambda: not can_send(client))
                    outputs = client.submit(Submit("a", [1], max_tokens=1))
                    assert client.state.state == "ready", "nobody has told yet that it is gone"
                    client.engine_died("it was killed", is_restarting=True)
            assert (await drain(outputs))[0] == [20]
            process.die()

    run(body)


def can_send(client: ZmqEngineClient) -> bool:
    try:
        client._send(Abort("nobody"))
    except EngineBusy:
        return False
    return True


def test_a_request_that_ends_engines_is_not_tried_for_ever(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            for k in range(MAX_DEATHS):
                process = EngineProcess(
                    scripted([10], gate=threading.Semaphore(0)), f"ipc://{tmp_path}/engine"
                )
                process.start()
                await until(lambda: client.state.state == "ready")
                if k == 0:
                    bad = client.submit(Submit("bad", [2], max_tokens=3))
                await asyncio.to_thread(process.die)
                client.engine_died("It was killed.", is_restarting=True)
            with pytest.raises(ClusterError, match=r"It was killed.*3 times in a row.*its cause"):
                await drain(bad)
            process = EngineProcess(scripted([10]), f"ipc://{tmp_path}/engine")
            process.start()
            good = client.submit(Submit("good", [1], max_tokens=1))
            assert (await drain(good))[0] == [10]
            process.die()

    run(body)


def n_tokens(client: ZmqEngineClient, name: str) -> int:
    return len(client._router._sequences[name]._tokens)


def test_sequences_wait_for_an_engine_as_long_as_they_may(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path, max_recover_s=1.0) as client:
            engine = scripted([10], max_len=10**9, gate=threading.Semaphore(0))
            process = EngineProcess(engine, f"ipc://{tmp_path}/engine")
            process.start()
            await until(lambda: client.state.state == "ready")
            cut_short = client.submit(Submit("cut short", [1], deadline_s=0.3))
            outputs = client.submit(Submit("a", [2]))
            await until(lambda: len(engine.submitted) == 2)
            assert engine.gate is not None
            engine.gate.release()
            await until(lambda: n_tokens(client, "a") > 0 and n_tokens(client, "cut short") > 0)
            await asyncio.to_thread(process.die)
            client.engine_died("It was killed.", is_restarting=True)
            later = client.submit(Submit("later", [3], deadline_s=0.3))
            assert (await drain(cut_short))[1].finish is FinishReason.LENGTH
            with pytest.raises(EngineBusy, match="time ran out after"):
                await drain(later)
            with pytest.raises(EngineBusy, match=r"It was killed.*within 1 s \(--max-recover-s\)"):
                await drain(outputs)
            assert not client.state.queues
            with pytest.raises(EngineBusy, match="loading"):
                client.submit(Submit("b", [1]))
            client.engine_died("It was killed again.", is_restarting=True)
            assert not client.state.queues, "the time counts from the first"
            process = EngineProcess(scripted([10]), f"ipc://{tmp_path}/engine")
            process.start()
            await until(lambda: client.state.state == "ready")
            assert (await drain(client.submit(Submit("c", [1], max_tokens=2))))[0] == [
                10,
                FILLER_ID,
            ]
            process.die()

    run(body)


def test_a_change_of_nodes_whose_engine_ends_says_what_became_of_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            engine = scripted([10], max_len=10**9, gate=threading.Semaphore(0))
            process = EngineProcess(engine, f"ipc://{tmp_path}/engine")
            process.start()
            await until(lambda: client.state.state == "ready")
            client.submit(Submit("a", [1]))  # it computes, and answers nobody meanwhile
            await until(lambda: len(engine.submitted) == 1)
            calls = [
                asyncio.create_task(client.nodes(NodesCall("n", action, address)))
                for action, address in (
                    (NodesAction.REMOVE, "10.0.0.3"), (NodesAction.ADD, "10.0.0.4"),
                    (NodesAction.LIST, ""),
                )
            ]  # fmt: skip
            await asyncio.sleep(0)
            client.engine_died("It was killed.", is_restarting=True)
            await asyncio.to_thread(process.die)
            again = "ask again when the model is served again."
            with pytest.raises(
                ClusterError, match=rf"killed\. 10\.0\.0\.3 was not removed: {again}"
            ):
                await calls[0]
            with pytest.raises(ClusterError, match=r"10\.0\.0\.4 was not added"):
                await calls[1]
            with pytest.raises(ClusterError, match=r"^It was killed\.$"):
                await calls[2]

    run(body)


@pytest.mark.parametrize(
    "submit",
    [
        Submit("a", [1] * ((1 << 22) + 1), context_shift=True),
        Submit("a", [1], grammar="x" * ((1 << 20) + 1)),
    ],
)
def test_what_the_engine_could_not_read_is_refused(tmp_path: Path, submit: Submit) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            process = EngineProcess(scripted([10]), f"ipc://{tmp_path}/engine")
            process.start()
            await until(lambda: client.state.state == "ready")
            with pytest.raises(RequestError, match="does not take this request"):
                client.submit(submit)
            call = SessionCall("s", SessionAction.SAVE, "me", "x" * 300)
            with pytest.raises(RequestError, match="does not take this request"):
                await client.session(call)
            assert client.n_open == 0
            good = client.submit(Submit("good", [1], max_tokens=1))
            assert (await drain(good))[0] == [10]
            process.die()

    run(body)


def test_requests_wait_for_another_engine_from_the_moment_that_one_fails(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            process = EngineProcess(scripted([10]), f"ipc://{tmp_path}/engine")
            process.start()
            client._receive(EngineState("failed", detail="There is no such file."))
            with pytest.raises(EngineBusy, match="no such file"):
                client.submit(Submit("early", [1]))  # a first load that fails is for people
            await until(lambda: client.state.state == "ready")
            client._receive(EngineState("failed", detail="A bug."))
            assert client.state.state == "failed", "the supervisor reads that"
            outputs = client.submit(Submit("a", [1], max_tokens=1))
            await asyncio.to_thread(process.die)
            client.engine_died("A bug.", is_restarting=True)
            process = EngineProcess(scripted([20]), f"ipc://{tmp_path}/engine")
            process.start()
            assert (await drain(outputs))[0] == [20]
            process.die()
            client._receive(EngineState("failed", detail="A bug."))
            late = client.submit(Submit("b", [1]))
            client.engine_died("A bug, again and again.")
            with pytest.raises(ClusterError, match="again and again"):
                await drain(late)

    run(body)


def test_who_has_tokens_is_not_ended_with_the_request_that_ends_engines() -> None:
    good, bad = OpenSequence(Submit("good", [1]), 0.0), OpenSequence(Submit("bad", [2]), 0.0)
    good.note(Output("good", [5]))
    for k in range(MAX_DEATHS):
        good.is_sent = bad.is_sent = True
        assert good.engine_gone("It was killed.", brought_tokens=False) is None
        ended = bad.engine_gone("It was killed.", brought_tokens=False)
        assert (ended is not None) == (k == MAX_DEATHS - 1)


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


def test_an_engine_that_talks_nonsense_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with started(tmp_path) as client:
            with zmq.Context() as context, context.socket(zmq.DEALER) as engine:
                engine.connect(f"ipc://{tmp_path}/engine")
                for _ in range(50):
                    engine.send(b"nonsense")
                    engine.send(encode_message(Abort("a")))  # what only servers say
                engine.send(encode_message(EngineState("ready", progress=1.0)))
                await until(lambda: client.state.state == "ready")

    run(body)
    assert caplog.text.count("was dropped") == 1
