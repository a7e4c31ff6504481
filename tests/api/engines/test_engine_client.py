"""The contract of EngineClient, over both of its implementations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from api.engines.client import EngineClient
from api.engines.in_process import InProcessEngineClient
from api.engines.zmq_client import ZmqEngineClient
from dllama.errors import ClusterError, EngineBusy
from dllama.requests import (
    FinishReason,
    Output,
    SamplingParams,
    SessionAction,
    SessionCall,
    Submit,
)
from tests.api.engine_process import EngineProcess
from tests.api.serving import run, until
from tests.scripted_runner import (
    FILLER_ID,
    SESSION_BYTES,
    ScriptedEngine,
    hidden_state,
    with_logprobs,
)

STOP_ID = 2


async def drain(outputs: AsyncIterator[Output]) -> tuple[list[int], Output]:
    tokens: list[int] = []
    last = None
    async for output in outputs:
        tokens += output.tokens
        last = output
    assert last is not None
    return tokens, last


@pytest.fixture(params=["in process", "zmq"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """A function (engine, max_open) -> started client, as an async context."""
    endpoint = f"ipc://{tmp_path}/engine"

    @asynccontextmanager
    async def made(engine: ScriptedEngine, max_open: int = 8) -> AsyncIterator[EngineClient]:
        client: InProcessEngineClient | ZmqEngineClient
        process = None
        if request.param == "zmq":
            client = ZmqEngineClient(endpoint, max_open=max_open)
            process = EngineProcess(engine, endpoint)
            process.start()
        else:
            client = InProcessEngineClient(engine, max_open=max_open)
        await client.start()
        try:
            await until(lambda: client.state.state == "ready")
            yield client
        finally:
            await client.close()
            if process is not None:
                process.die()

    yield made


def scripted(tokens: list[int], **more: object) -> ScriptedEngine:
    """An engine of 4096 tokens that says these after any prompt."""
    return ScriptedEngine(lambda submit: tokens, vocab_size=4096, **more)  # type: ignore[arg-type]


def test_tokens_arrive_in_order_up_to_the_stop_id(make) -> None:
    async def body() -> None:
        async with make(scripted([10, 11, 12, STOP_ID])) as client:
            for name in "ab":  # the second finds the prompt in the cache, but for its last token
                submit = Submit(name, [1, 2], stop_ids=[STOP_ID])
                tokens, last = await drain(client.submit(submit))
            assert tokens == [10, 11, 12]
            assert (last.finish, last.n_prompt, last.n_cached) == (FinishReason.STOP, 2, 1)

    run(body)


def test_max_tokens_and_context_end_with_length(make) -> None:
    async def body() -> None:
        async with make(scripted([10], max_len=6)) as client:
            tokens, last = await drain(client.submit(Submit("a", [1, 2], max_tokens=2)))
            assert (tokens, last.finish) == ([10, FILLER_ID], FinishReason.LENGTH)
            tokens, last = await drain(client.submit(Submit("b", [1, 2])))
            assert (len(tokens), last.finish) == (4, FinishReason.LENGTH)

    run(body)


def test_every_field_of_a_request_reaches_the_engine(make) -> None:
    sampling = SamplingParams(0.5, 7, 0.9, 0.1, 1.1, 0.2, 0.3, 32, {5: float("-inf")}, 2**63 - 1)
    submit = Submit("a", [1, 2, 3], sampling, [STOP_ID, 9], 1)

    async def body() -> None:
        engine = scripted([10])
        async with make(engine) as client:
            await drain(client.submit(submit))
            assert engine.submitted == [submit]

    run(body)


def test_every_field_of_an_output_arrives(make) -> None:
    async def body() -> None:
        gate = threading.Semaphore(0)  # a step at a time: no two outputs are merged
        engine = ScriptedEngine(
            lambda submit: [with_logprobs({9: -0.5, 8: -1.5}, 352)], gate=gate,
            max_batch=2, max_step_tokens=2,
        )  # fmt: skip
        async with make(engine) as client:
            sampling = SamplingParams(temperature=0.0, n_probs=2)
            asked = Submit("a", [1, 2, 3, 4], sampling, max_tokens=1, wants_progress=True)
            outputs = client.submit(asked)
            gate.release()
            progress = await anext(outputs)
            assert (progress.tokens, progress.n_prompt, progress.n_computed) == ([], 4, 2)
            gate.release()
            answer = await anext(outputs)
            assert (answer.tokens, answer.finish) == ([9], FinishReason.LENGTH)
            [probs] = answer.probs
            assert (probs.token, probs.top_ids) == (9, [9, 8])
            assert [probs.value, *probs.top_values] == pytest.approx([-0.5, -0.5, -1.5])
            gate.release(100)
            asked = Submit("b", [5, 6, 7], pooling="mean", cache_prompt=False)
            _, pooled = await drain(client.submit(asked))
            states = [hidden_state(token, i) for i, token in enumerate(asked.tokens)]
            assert np.frombuffer(pooled.embedding, "<f4") == pytest.approx(np.mean(states, axis=0))

    run(body)


def test_sessions_are_saved_and_what_is_wrong_is_in_the_reply(make, tmp_path: Path) -> None:
    async def body() -> None:
        async with make(scripted([10, 11], session_dir=tmp_path)) as client:
            await drain(client.submit(Submit("a", [1, 2, 3], max_tokens=2, session_id="talk")))
            save = SessionCall("7", SessionAction.SAVE, "talk", "file")
            reply = await client.session(save)
            assert (reply.id, reply.error, reply.n_tokens) == ("7", None, 4)
            assert reply.n_bytes > SESSION_BYTES
            unknown = await client.session(replace(save, id="8", session_id="nobody"))
            assert unknown.id == "8" and "there is no session" in unknown.error

    run(body)


def test_an_engine_that_is_gone_saves_no_sessions(make) -> None:
    async def body() -> None:
        async with make(scripted([10])) as client:
            client.engine_died("it was killed")
            with pytest.raises(EngineBusy, match="it was killed"):
                await client.session(SessionCall("1", SessionAction.ERASE, "talk"))

    run(body)


def test_many_sequences_at_once_do_not_mix(make) -> None:
    async def body() -> None:
        engine = ScriptedEngine(
            lambda submit: [submit.tokens[0] + i for i in range(50)], vocab_size=4096
        )
        async with make(engine, 20) as client:
            jobs = [
                drain(client.submit(Submit(str(k), [100 * k], max_tokens=50))) for k in range(20)
            ]
            for k, (tokens, _) in enumerate(await asyncio.gather(*jobs)):
                assert tokens == [100 * k + i for i in range(50)]

    run(body)


def test_a_slow_reader_gets_all_tokens_merged(make) -> None:
    async def body() -> None:
        engine = scripted([10])
        async with make(engine) as client:
            outputs = client.submit(Submit("a", [1], max_tokens=100))
            await until(lambda: engine.runner.n_steps > 0 and not engine.running)
            await client.stats()  # comes after all that the engine has said before
            first = await anext(outputs)
            assert len(first.tokens) == 100
            assert first.finish is FinishReason.LENGTH
            with pytest.raises(StopAsyncIteration):
                await anext(outputs)

    run(body)


def test_abort_frees_the_sequence_and_ends_its_iterator(make) -> None:
    async def body() -> None:
        engine = scripted([10], max_len=10**9)
        async with make(engine) as client:
            outputs = client.submit(Submit("a", [1]))
            await anext(outputs)
            client.abort("a")
            client.abort("a")
            client.abort("nobody")
            await until(lambda: engine.aborted == ["a"])
            with pytest.raises(StopAsyncIteration):
                while True:
                    await anext(outputs)
            assert not engine.running
            # Another id: of the first one a token may still be under way.
            assert len((await drain(client.submit(Submit("b", [1], max_tokens=3))))[0]) == 3

    run(body)


def test_a_cancelled_read_loses_nothing(make) -> None:
    async def body() -> None:
        gate = threading.Semaphore(0)
        async with make(ScriptedEngine(lambda s: list(range(40)), gate=gate)) as client:
            outputs = client.submit(Submit("a", [1], max_tokens=40))
            tokens: list[int] = []
            while len(tokens) < 40:
                gate.release()
                try:
                    async with asyncio.timeout(0.0005):
                        tokens += (await anext(outputs)).tokens
                except TimeoutError:
                    continue
            assert tokens == list(range(40))

    run(body)


def test_too_many_sequences_are_refused_here_and_by_the_engine(make) -> None:
    async def body() -> None:
        gate = threading.Semaphore(0)
        engine = scripted([10], max_len=10**9, max_waiting=2, gate=gate)
        async with make(engine, 3) as client:
            client.submit(Submit("a", [1]))
            client.submit(Submit("b", [1]))
            refused = client.submit(Submit("c", [1]))
            await until(lambda: len(engine.submitted) == 3)
            gate.release()
            with pytest.raises(EngineBusy, match="all the queue holds") as busy:
                await drain(refused)
            assert busy.value.retry_after_s == 1.0
            client.submit(Submit("d", [1]))
            with pytest.raises(EngineBusy):
                client.submit(Submit("e", [1]))

    run(body)


def test_a_request_whose_time_runs_out_is_told_when_to_come_back(make) -> None:
    async def body() -> None:
        gate, now_s = threading.Semaphore(0), [0.0]
        engine = scripted([10], gate=gate, clock=lambda: now_s[0])
        async with make(engine) as client:
            outputs = client.submit(Submit("a", [1], deadline_s=1.5))
            await until(lambda: len(engine.submitted) == 1)
            now_s[0] = 2.0
            gate.release()
            with pytest.raises(EngineBusy, match=r"ran out after 2\.0 s") as busy:
                await drain(outputs)
            assert busy.value.retry_after_s == 5.0

    run(body)


def test_a_lost_node_is_a_pause(make) -> None:
    async def body() -> None:
        engine = scripted([10, 20, 30], max_len=10**9)
        engine.runner.n_recover_failures = 10**9
        async with make(engine) as client:
            outputs = client.submit(Submit("a", [1], max_tokens=500))
            first = await anext(outputs)
            engine.runner.loses_node = True
            await until(lambda: client.state.state == "recovering")
            assert client.state.queues and "node 1" in client.state.detail
            late = client.submit(Submit("b", [1, 2], max_tokens=3))
            gone = client.submit(Submit("c", [1, 2, 3], max_tokens=3))
            client.abort("c")
            with pytest.raises(EngineBusy, match="recovering"):
                await client.session(SessionCall("s", SessionAction.ERASE, "nobody"))
            engine.runner.n_recover_failures = 0
            rest, _ = await drain(outputs)
            assert [*first.tokens, *rest] == [10, 20, 30, *[FILLER_ID] * 497]
            assert (await drain(late))[0] == [10, 20, 30] and [o async for o in gone] == []
            assert client.state.state == "ready"

    run(body)


def test_an_engine_that_breaks_fails_its_sequences_and_says_so(make, caplog) -> None:
    async def body() -> None:
        engine = scripted([10], max_len=10**9)
        async with make(engine) as client:
            outputs = client.submit(Submit("a", [1]))
            await anext(outputs)
            engine.runner.fails_with = ZeroDivisionError("a bug")
            await until(lambda: client.state.state == "failed")
            if isinstance(client, ZmqEngineClient):  # whose supervisor says what becomes of it
                client.engine_died("a bug")
            with pytest.raises(ClusterError, match="a bug"):
                await drain(outputs)
            with pytest.raises(EngineBusy, match="failed"):
                client.submit(Submit("b", [1]))

    run(body)


def test_the_supervisors_word_ends_everything(make) -> None:
    async def body() -> None:
        async with make(scripted([10], max_len=10**9)) as client:
            outputs = client.submit(Submit("a", [1]))
            await anext(outputs)
            client.engine_died("the engine was killed by signal 9")
            with pytest.raises(ClusterError, match="signal 9"):
                await drain(outputs)
            assert client.state.state == "failed"
            with pytest.raises(EngineBusy, match="signal 9"):
                client.submit(Submit("b", [1]))

    run(body)


def test_stats_are_the_engines_own(make) -> None:
    async def body() -> None:
        engine = scripted([10], clock=lambda: 5.0)
        async with make(engine) as client:
            replies = await asyncio.gather(*(client.stats() for _ in range(5)))
            assert replies == 5 * [engine.stats()]

    run(body)


def test_closing_ends_what_still_runs(make) -> None:
    async def body() -> None:
        async with make(scripted([10], max_len=10**9)) as client:
            outputs = client.submit(Submit("a", [1]))
            await anext(outputs)
        with pytest.raises(ClusterError, match="stopping"):
            await drain(outputs)

    run(body)
