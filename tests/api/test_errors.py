"""Whatever is wrong with a request is answered in OpenAI's shape, and the server serves on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import orjson
import pytest

from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.engines.zmq_client import ZmqEngineClient
from api.errors import ApiError
from tests.api.serving import (
    MAX_SEQ_LEN,
    ImpatientClient,
    Server,
    ask,
    run,
    says,
    served,
    serving,
    serving_engine,
    until,
)
from tests.scripted_runner import ScriptedEngine

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def test_a_prompt_longer_than_the_context_is_told_both_numbers() -> None:
    engine = ScriptedEngine(says("a"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            assert (await server.complete([1] * (MAX_SEQ_LEN - 1))).status == 200
            for n in (MAX_SEQ_LEN, MAX_SEQ_LEN + 10):
                reply = await server.complete([1] * n)
                assert reply.status == 400
                assert reply.error["type"] == "exceed_context_size_error"
                assert (reply.error["n_prompt_tokens"], reply.error["n_ctx"]) == (n, MAX_SEQ_LEN)
                assert str(n) in reply.error["message"]
                assert str(MAX_SEQ_LEN) in reply.error["message"]
            reply = await server.chat(messages=[{"role": "user", "content": "word " * 3000}])
            assert reply.error["type"] == "exceed_context_size_error"

    run(body)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"not json", b"[]", b"5", b'"text"', b"null", b"\xff\xfe", b'{"prompt": NaN}',
     b'{"prompt": "\\ud8"}', b'{"a":' * 5000, b"[" * 100_000],
)  # fmt: skip
def test_bodies_that_are_no_json_object(data: bytes) -> None:
    async def call(server: Server):
        return await server.request("POST", TEXT, data=data)

    reply = ask(ScriptedEngine(says("a")), call)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


def test_a_body_that_claims_to_be_gzip_and_is_not() -> None:
    async def call(server: Server):
        headers = {"Content-Encoding": "gzip"}
        return await server.request("POST", TEXT, data=b"no gzip at all", headers=headers)

    assert ask(ScriptedEngine(says("a")), call).status == 400


def test_a_body_of_100_mb_is_refused_without_being_kept() -> None:
    import tracemalloc

    chunk = b"x" * (1 << 20)

    async def trickle():
        for _ in range(100):
            yield chunk

    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            tracemalloc.start()
            length = {"Content-Length": str(100 << 20)}
            for headers in (length, {}):  # with the size told, and in chunks
                reply = await server.request("POST", CHAT, data=trickle(), headers=headers)
                assert reply.status == 413
                assert reply.error["type"] == "invalid_request_error"
                assert str(ApiConfig().max_body_bytes) in reply.error["message"]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 40 << 20
            assert (await server.complete()).status == 200

    run(body)


def test_a_body_that_never_comes_is_given_up() -> None:
    async def body() -> None:
        config = ApiConfig(body_timeout_s=0.05)
        async with serving_engine(ScriptedEngine(says("a")), config) as server:
            host, port = server.runner.addresses[0][:2]
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
            assert b" 408 " in await reader.readline()
            writer.close()

    run(body)


def test_unknown_routes_and_wrong_methods() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            reply = await server.get("/v1/nothing")
            assert (reply.status, reply.error["type"]) == (404, "not_found_error")
            reply = await server.get(CHAT)
            assert (reply.status, reply.headers["Allow"]) == (405, "POST")
            assert "POST" in reply.error["message"]
            reply = await server.post("/health", {})
            assert reply.status == 405

    run(body)


def test_unknown_models_and_known_aliases() -> None:
    async def body() -> None:
        engine = InProcessEngineClient(ScriptedEngine(says("first")))
        other = InProcessEngineClient(ScriptedEngine(says("second")))
        models = served(engine, "org/one", ("uno", "1")), served(other, "two")
        async with serving(*models) as server:
            for name in ("org/one", "uno", "1", None):
                reply = await server.complete(model=name)
                assert reply.json["model"] == "org/one"
            assert (await server.complete(model="two")).json["choices"][0]["text"] == "second"
            for reply in (
                await server.complete(model="gpt-4"),
                await server.chat(model=""),
                await server.get("/v1/models/gpt-4"),
                await server.post("/tokenize", {"content": "", "model": "gpt-4"}),
            ):
                assert reply.status == 404
                assert reply.error["code"] in ("model_not_found", 404)
                assert reply.error["param"] == "model"

    run(body)


def test_what_nobody_foresaw_is_a_500_and_logged(caplog) -> None:
    class Broken(InProcessEngineClient):
        def submit(self, submit):
            raise ZeroDivisionError("a bug")

    async def body() -> None:
        async with serving(served(Broken(ScriptedEngine(says("a"))))) as server:
            for stream in (False, True):
                reply = await server.complete(stream=stream)
                assert (reply.status, reply.error["type"]) == (500, "server_error")
                assert "a bug" not in reply.error["message"]
            assert (await server.get("/health")).status == 200

    run(body)
    assert "ZeroDivisionError: a bug" in caplog.text


def test_no_room_is_a_503_with_retry_after() -> None:
    gate = threading.Semaphore(1)  # one step: the first request runs, the second waits
    engine = ScriptedEngine(says("a"), gate=gate, max_batch=1, max_waiting=1)

    async def body() -> None:
        async with serving_engine(engine) as server:
            waiting = [asyncio.create_task(server.complete())]
            await until(lambda: engine.runner.n_steps == 1)
            waiting.append(asyncio.create_task(server.complete()))
            await until(lambda: len(engine.running) == 2)
            for stream in (False, True):
                refused = asyncio.create_task(server.complete(stream=stream))
                await until(lambda n=3 + stream: len(engine.submitted) == n)
                gate.release()
                reply = await refused
                assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
                assert reply.error["type"] == "unavailable_error"
            gate.release(1000)
            assert [reply.status for reply in await asyncio.gather(*waiting)] == [200, 200]
        full = InProcessEngineClient(ScriptedEngine(says("a")), max_open=3)
        async with serving(served(full)) as server:
            reply = await server.complete(n=4)
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            assert (await server.complete(n=3)).status == 200

    run(body)


def test_a_wait_is_told_in_whole_seconds_and_is_never_none() -> None:
    for seconds, told in ((0.0, "1"), (0.2, "1"), (1.0, "1"), (2.1, "3")):
        assert ApiError(503, "later", retry_after_s=seconds).headers == {"Retry-After": told}
    assert ApiError(400, "no").headers == {}


def test_loading_and_failed_are_503s_and_only_one_of_them_is_the_end(tmp_path: Path) -> None:
    async def body() -> None:
        client = ZmqEngineClient(f"ipc://{tmp_path}/engine")  # no engine has come yet
        async with serving(served(client)) as server:
            reply = await server.chat()
            assert reply.status == 503
            assert "loading" in reply.error["message"]
            assert int(reply.headers["Retry-After"]) >= 1
            health = await server.get("/health")
            assert (health.status, health.json["status"]) == (503, "loading")
            assert health.json["progress"] == 0.0
            assert (await server.get("/live")).status == 200
            assert (await server.post("/tokenize", {"content": "x"})).status == 200
            client.engine_died("it was killed")
            assert "killed" in (await server.chat()).error["message"]
            assert (await server.get("/health")).json["status"] == "failed"
            end = await server.get("/live")
            assert (end.status, end.json["status"]) == (503, "failed")
            assert "killed" in end.error["message"]

    run(body)


def test_a_lost_node_is_told_before_and_within_a_stream() -> None:
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(says("x", ends=False), gate=gate)
    engine.runner.n_recover_failures = 10**9

    async def body() -> None:
        async with serving_engine(engine, client=ImpatientClient) as server:
            url = server.url + TEXT
            whole = asyncio.create_task(server.complete())
            async with server.session.post(url, json={"prompt": "a", "stream": True}) as response:
                await until(lambda: len(engine.running) == 2)
                gate.release()
                await response.content.readline()
                engine.runner.loses_node = True
                gate.release()
                rest = (await response.read()).split(b"\n\n")
            error = orjson.loads(rest[-3].strip().removeprefix(b"data: "))["error"]
            assert error["type"] == "unavailable_error"
            assert "node 1 is lost" in error["message"]
            assert rest[-2:] == [b"data: [DONE]", b""]
            reply = await whole
            assert (reply.status, reply.headers["Retry-After"]) == (503, "3")
            assert reply.error["message"].startswith("node 1 is lost; the answer ends here")
            reply = await server.complete(stream=True)
            assert (reply.status, "Retry-After" in reply.headers) == (503, True)
            engine.runner.n_recover_failures = 0
            gate.release(10**6)
            async with asyncio.timeout(20):
                while (await server.get("/health")).status != 200:
                    await asyncio.sleep(0.01)
            assert (await server.complete(max_tokens=2)).status == 200

    run(body)
