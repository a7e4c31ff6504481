"""Streams that go on without their client, as llama-server has them."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import orjson
import pytest

from api.config import ApiConfig
from api.context import CONTEXT
from api.conversation_streams import MAX_STREAM_BYTES, Conversation, ConversationStream
from api.replies.event_stream import SSE
from tests.api.serving import ImpatientClient, Server, ask, run, says, serving_engine, until
from tests.scripted_runner import ScriptedEngine

TEXT = "Hello wörld ☕! And more."
HI = [{"role": "user", "content": "Hi"}]
ID = "conv-1::org/model:Q8_0"
HEADERS = {"X-Conversation-Id": ID}
AT = {"conv_id": ID}
NAMED = Conversation("", ID)
BODIES = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/completion": {"prompt": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 100},
    "/v1/responses": {"input": "Hi"},
    "/api/chat": {"messages": HI},
}


def waiting_engine() -> tuple[ScriptedEngine, threading.Semaphore]:
    """An engine that takes a step when the test lets it."""
    gate = threading.Semaphore(0)
    return ScriptedEngine(says(TEXT), gate=gate), gate


def let_go(gate: threading.Semaphore) -> None:
    for _ in range(200):
        gate.release()


@pytest.mark.parametrize("path", BODIES)
def test_a_complete_stream_is_found_again_from_any_byte(path: str) -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says(TEXT))) as server:
            asked = {"stream": True, **BODIES[path]}
            sent = await server.post(path, asked, headers=HEADERS)
            assert sent.status == 200
            for n in (0, 1, 57, len(sent.data)):
                again = await server.get("/v1/stream", params={**AT, "from": str(n)})
                assert again.status == 200 and again.data == sent.data[n:]
                assert again.headers["Content-Type"] == sent.headers["Content-Type"]
            assert (await server.get("/v1/stream", params=AT)).data == sent.data

    run(body)


def test_the_answer_goes_on_when_the_client_leaves() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine) as server:
            path, asked = "/v1/chat/completions", {"messages": HI, "stream": True}
            async with server.session.post(
                server.url + path, data=orjson.dumps(asked), headers=HEADERS
            ) as reply:
                gate.release()
                begun = await reply.content.readany()
                reply.close()  # the client is gone
            context = server.app[CONTEXT]
            await until(lambda: context.requests.n_open == 0)
            assert len(context.generating) == 1  # a server that stops waits for it
            let_go(gate)
            whole = await server.get("/v1/stream", params=AT)
            assert whole.data.startswith(begun)
            pieces = [event["choices"][0]["delta"].get("content") for event in whole.events]
            assert "".join(piece or "" for piece in pieces) == TEXT
            assert engine.aborted == [] and not context.generating

    run(body)


def test_a_reader_joins_while_the_answer_is_written() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine) as server:
            asked = {"messages": HI, "stream": True}
            post = asyncio.create_task(server.post("/v1/chat/completions", asked, headers=HEADERS))
            streams = server.app[CONTEXT].streams
            await until(lambda: streams.find(NAMED) is not None)
            [state] = (await server.post("/v1/streams/lookup", {"conversation_ids": [ID]})).json
            assert (state["is_done"], state["completed_at"]) == (False, 0)
            reader = asyncio.create_task(server.get("/v1/stream", params=AT))
            let_go(gate)
            assert (await reader).data == (await post).data
            [state] = (await server.post("/v1/streams/lookup", {"conversation_ids": [ID]})).json
            assert state["is_done"] and state["completed_at"] >= state["started_at"]
            assert state["total_bytes"] == len((await post).data)

    run(body)


def test_delete_ends_the_answer() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine) as server:
            asked = {"messages": HI, "stream": True}
            post = asyncio.create_task(server.post("/v1/chat/completions", asked, headers=HEADERS))
            await until(lambda: len(engine.running) == 1)
            assert (await server.request("DELETE", "/v1/stream", params=AT)).status == 204
            let_go(gate)
            assert b"[DONE]" not in (await post).data
            await until(lambda: len(engine.aborted) == 1)
            assert (await server.get("/v1/stream", params=AT)).status == 404
            assert (await server.request("DELETE", "/v1/stream", params=AT)).status == 204

    run(body)


def test_a_new_answer_of_a_conversation_ends_the_one_before() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine) as server:
            asked = {"messages": HI, "stream": True}
            first = asyncio.create_task(server.post("/v1/chat/completions", asked, headers=HEADERS))
            await until(lambda: len(engine.running) == 1)
            second = asyncio.create_task(server.post("/completion", {
                "prompt": "Hi", "stream": True}, headers=HEADERS))  # fmt: skip
            await until(lambda: len(engine.submitted) == 2)
            let_go(gate)
            assert b"[DONE]" not in (await first).data
            assert (await server.get("/v1/stream", params=AT)).data == (await second).data

    run(body)


def test_only_streams_are_kept_and_only_those_that_began() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine, client=ImpatientClient) as server:
            streams = server.app[CONTEXT].streams
            asked = {"messages": HI, "stream": True}
            engine.runner.loses_node = True
            let_go(gate)
            for wrong, status in ({"n": "many"}, 400), ({}, 503):
                reply = await server.post("/v1/chat/completions", asked | wrong, headers=HEADERS)
                assert reply.status == status and reply.error["message"]
                await until(lambda: streams.find(NAMED) is None)
        async with serving_engine(ScriptedEngine(says(TEXT))) as server:
            await server.chat(headers=HEADERS)
            reply = await server.post("/v1/chat/completions", {"messages": HI}, headers=HEADERS)
            assert reply.status == 200 and server.app[CONTEXT].streams.find(NAMED) is None
            long = {"X-Conversation-Id": "x" * 513}
            reply = await server.post(
                "/v1/chat/completions", {"messages": HI, "stream": True}, headers=long
            )
            assert reply.status == 400 and "X-Conversation-Id" in reply.error["message"]

    run(body)


def test_an_error_in_the_middle_is_kept_too() -> None:
    engine, gate = waiting_engine()

    async def body() -> None:
        async with serving_engine(engine, client=ImpatientClient) as server:
            asked = {"messages": HI, "stream": True}
            post = asyncio.create_task(server.post("/v1/chat/completions", asked, headers=HEADERS))
            gate.release()
            gate.release()
            await until(lambda: engine.runner.n_steps >= 2)
            engine.runner.loses_node = True
            let_go(gate)
            sent = await post
            assert b'"error"' in sent.data and sent.data.endswith(b"data: [DONE]\n\n")
            assert (await server.get("/v1/stream", params=AT)).data == sent.data

    run(body)


def test_bytes_that_are_gone_are_not_skipped() -> None:
    async def write(stream: ConversationStream) -> None:
        for _ in range(5):
            await stream.write(b"x" * (1 << 20))

    async def body() -> None:
        async with serving_engine(ScriptedEngine(says(TEXT))) as server:
            stream = server.app[CONTEXT].streams.open(NAMED, SSE, write)
            await until(lambda: stream.is_done)
            reply = await server.get("/v1/stream", params=AT)
            assert reply.status == 400 and str(1 << 20) in reply.error["message"]
            kept = await server.get("/v1/stream", params={**AT, "from": str(1 << 20)})
            assert kept.status == 200 and len(kept.data) == MAX_STREAM_BYTES

    run(body)


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 400), ({"conv_id": ""}, 400), ({"conv_id": "x" * 513}, 400), ({"conv_id": "?"}, 404),
     ({"conv_id": "?", "from": "-1"}, 400), ({"conv_id": "?", "from": "1.5"}, 400),
     ({"conv_id": "?", "from": "9" * 30}, 400)],
)  # fmt: skip
def test_wrong_queries(query: dict, status: int) -> None:
    async def call(server: Server):
        return await server.get("/v1/stream", params=query)

    reply = ask(ScriptedEngine(says("a")), call)
    assert reply.status == status and reply.error["message"]


def test_a_lookup_tells_of_nothing_that_was_not_named() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says(TEXT))) as server:
            for name in ("a", "a::one", "a::two", "ab", "b"):
                await server.post(
                    "/completion", {"prompt": "Hi", "stream": True},
                    headers={"X-Conversation-Id": name},
                )  # fmt: skip

            async def found(*names: str) -> list[str]:
                reply = await server.post("/v1/streams/lookup", {"conversation_ids": names})
                return [state["conversation_id"] for state in reply.json]

            assert await found("a") == ["a", "a::one", "a::two"]
            assert await found("b", "a::one", "unknown") == ["a::one", "b"]
            assert await found() == await found("") == []
            assert (await server.post("/v1/streams/lookup", {})).json == []
            for wrong in (5, [5], ["x"] * 1025):
                reply = await server.post("/v1/streams/lookup", {"conversation_ids": wrong})
                assert reply.status == 400

    run(body)


def test_a_key_is_needed_and_finds_its_own_streams_only() -> None:
    async def body() -> None:
        config = ApiConfig(api_keys=("secret", "other"))
        async with serving_engine(ScriptedEngine(says(TEXT)), config) as server:
            key, again = {"Authorization": "Bearer secret"}, {"X-Api-Key": "secret"}
            other = {"Authorization": "Bearer other"}
            asked = {"prompt": "Hi", "stream": True}
            sent = await server.post("/completion", asked, headers=HEADERS | key)
            ids = {"conversation_ids": [ID]}
            for method, path in (
                ("GET", "/v1/stream"), ("DELETE", "/v1/stream"), ("POST", "/v1/streams/lookup")
            ):  # fmt: skip
                assert (await server.request(method, path, params=AT)).status == 401
            assert (await server.get("/v1/stream", params=AT, headers=other)).status == 404
            assert (await server.post("/v1/streams/lookup", ids, headers=other)).json == []
            gone = await server.request("DELETE", "/v1/stream", params=AT, headers=other)
            assert gone.status == 204
            await server.post("/completion", asked, headers=HEADERS | other)
            for own in (key, again):
                kept = await server.get("/v1/stream", params=AT, headers=own)
                assert kept.status == 200 and kept.data == sent.data
                assert len((await server.post("/v1/streams/lookup", ids, headers=own)).json) == 1

    run(body)


def test_a_reader_that_is_too_slow_is_cut_off_and_notices() -> None:
    goes_on = asyncio.Event()

    async def write(stream: ConversationStream) -> None:
        await stream.write(b"begun")
        await goes_on.wait()
        for _ in range(5):  # at once, so that no reader keeps up
            await stream.write(b"x" * (1 << 20))

    async def body() -> None:
        async with serving_engine(ScriptedEngine(says(TEXT))) as server:
            server.app[CONTEXT].streams.open(NAMED, SSE, write)
            url = server.url + "/v1/stream"
            async with server.session.get(url, params=AT) as reply:
                assert await reply.content.readexactly(5) == b"begun"
                goes_on.set()
                with pytest.raises(aiohttp.ClientError):
                    await reply.read()

    run(body)
