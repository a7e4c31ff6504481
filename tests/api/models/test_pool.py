"""A server of many models over HTTP: requests choose theirs by name, and what becomes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest

from api.config import AnswerDefaults
from api.http.serve import finish
from api.models.entry import ModelEntry
from tests.api.models.scripted_source import GB, ScriptedSource
from tests.api.serving import Reply, Server, run, serving_models, until

HI = [{"role": "user", "content": "Hi"}]
QUESTIONS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 50},
    "/completion": {"prompt": "Hi"},
    "/api/chat": {"messages": HI, "stream": False},
    "/api/generate": {"prompt": "Hi", "stream": False},
}
OTHERS: dict[str, dict[str, object]] = {
    "/v1/embeddings": {"input": "Hi"},
    "/embedding": {"content": "Hi"},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [65]},
    "/apply-template": {"messages": HI},
    "/v1/messages/count_tokens": {"messages": HI},
    "/v1/chat/completions/input_tokens": {"messages": HI},
    "/v1/responses/input_tokens": {"input": "Hi"},
    "/api/show": {},
}


@asynccontextmanager
async def routing(
    source: ScriptedSource, max_models: int = 1, **more: object
) -> AsyncIterator[Server]:
    async with serving_models(source.pool(max_models, **more)) as server:  # type: ignore[arg-type]
        yield server


async def status_of(server: Server, name: str) -> dict:
    return (await server.get(f"/models/{name}")).json["status"]


async def until_status(server: Server, name: str, value: str) -> None:
    async with asyncio.timeout(20):
        while (await status_of(server, name))["value"] != value:
            await asyncio.sleep(0.005)


def test_every_route_takes_the_model_that_is_named() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two", aliases=())
        async with routing(source) as server:
            for path, asked in QUESTIONS.items():
                for name in ("one", "two"):
                    reply = await server.post(path, {"model": name, **asked})
                    assert reply.status == 200, (path, reply.data)
                    assert f"I am {name}".encode() in reply.data, path
                    assert [one.entry.name for one in source.running] == [name]
            assert source.n_loads == 2 * len(QUESTIONS)
            for path, asked in OTHERS.items():
                reply = await server.post(path, {"model": "two", **asked})
                assert reply.status == 200, (path, reply.data)
            for path in ("/slots", "/metrics", "/stats", "/cluster/nodes", "/props"):
                assert (await server.get(f"{path}?model=two")).status == 200, path
            for path in ("/metrics", "/stats", "/props", "/health", "/models", "/api/tags"):
                assert (await server.get(path)).status == 200, path
            assert source.n_loads == 2 * len(QUESTIONS)
            assert (await server.get("/props?model=one")).json["model_alias"] == "one"
            assert (await server.get("/props")).json["role"] == "router"
            assert source.n_loads == 2 * len(QUESTIONS), "to look at a model does not load it"

    run(body)


def test_names_that_are_wrong_and_models_that_are_not_loaded() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        async with routing(source, autoloads=False) as server:
            for path, asked in (QUESTIONS | OTHERS).items():
                missing = await server.post(path, asked)
                assert missing.status == 400 and b"one, two" in missing.data, path
                unknown = await server.post(path, {"model": "three", **asked})
                assert unknown.status == 404 and b"three" in unknown.data, path
                if path != "/api/show":
                    cold = await server.post(path, {"model": "one", **asked})
                    assert cold.status == 400 and b"not loaded" in cold.data, path
            assert (await server.get("/slots?model=one")).status == 400
            reply = await server.post("/completion?autoload=true", {"model": "one", "prompt": ""})
            assert reply.status == 200 and source.n_loads == 1

    run(body)


def test_what_a_request_means_by_default_is_its_models() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.listed[1] = ModelEntry(
            "two", ("other",), defaults=AnswerDefaults(fields={"seed": 7}, n_predict=3)
        )
        async with routing(source, 2) as server:
            for name in ("two", "other"):
                told = (await server.post("/completion", {"model": name, "prompt": "Hi"})).json
                assert told["tokens_predicted"] == 3 and told["model"] == "two"
                assert told["generation_settings"]["seed"] == 7
            told = (await server.post("/completion", {"model": "one", "prompt": "Hi"})).json
            assert told["tokens_predicted"] > 3 and told["generation_settings"]["seed"] != 7

    run(body)


def test_load_unload_and_the_list() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two", "three", loads_on_startup=False)
        async with routing(source, 2) as server:
            rows = (await server.get("/v1/models")).json["data"]
            assert [row["id"] for row in rows] == ["one", "two", "three"]
            assert {row["status"]["value"] for row in rows} == {"unloaded"}
            source.may_load.clear()
            assert (await server.post("/models/load", {"model": "one"})).json == {"success": True}
            assert (await status_of(server, "one"))["value"] == "loading"
            progress = (await status_of(server, "one"))["progress"]
            assert progress["current"] in progress["stages"] and 0 <= progress["value"] <= 1
            again = await server.post("/models/load", {"model": "one"})
            assert again.status == 400 and "already running" in again.json["error"]["message"]
            source.may_load.set()
            await until_status(server, "one", "loaded")
            for path in ("/models/load", "/models/unload"):
                assert (await server.post(path, {"model": "four"})).status == 404
                assert (await server.post(path, {})).status == 400
            idle = await server.post("/models/unload", {"model": "two"})
            assert idle.status == 400 and "is not running" in idle.json["error"]["message"]
            assert (await server.post("/models/unload", {"model": "one"})).status == 200
            await until_status(server, "one", "unloaded")
            await until(lambda: not source.running)
            assert "failed" not in await status_of(server, "one")

    run(body)


def test_a_model_that_leaves_is_loaded_again_once_it_is_gone() -> None:
    async def body() -> None:
        source = ScriptedSource("one")
        async with routing(source) as server:
            assert (await server.post("/models/load", {"model": "one"})).status == 200
            await until_status(server, "one", "loaded")
            source.may_end.clear()
            assert (await server.post("/models/unload", {"model": "one"})).status == 200
            assert (await status_of(server, "one"))["value"] == "unloaded"
            assert (await server.post("/models/load", {"model": "one"})).status == 200
            assert source.running and source.n_loads == 1, "its engine has not ended"
            source.may_end.set()
            await until_status(server, "one", "loaded")
            assert source.n_loads == 2

    run(body)


def test_models_of_the_start_are_loaded_then() -> None:
    async def body() -> None:
        source = ScriptedSource("gone", "one", loads_on_startup=True)
        source.listed[0] = replace(source.listed[0], path="missing")
        async with routing(source) as server:
            await until_status(server, "one", "loaded")

    run(body)


def test_listeners_hear_what_becomes_of_models() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        async with routing(source) as server, server.session.get(f"{server.url}/models/sse") as sse:
            assert (await server.chat(model="one")).status == 200
            source.failures["two"] = "it is broken"
            assert (await server.chat(model="two")).status == 503
            heard = []
            async for line in sse.content:
                if line.startswith(b"data: "):
                    heard.append(orjson.loads(line.removeprefix(b"data: ")))
                    if heard[-1]["data"].get("reason"):
                        break
            mine = [told for told in heard if told["model"] == "one"]
            assert mine[0]["event"] == "model_status" and mine[0]["data"]["status"] == "loading"
            assert {told["event"] for told in mine[1:]} == {"status_change"}
            states = [told["data"]["status"] for told in mine]
            assert states[-2:] == ["loaded", "unloaded"] and mine[-1]["data"]["exit_code"] == 0
            assert heard[-1]["data"]["exit_code"] == 1

    run(body)


def test_a_model_that_fails_is_told_and_comes_back_after_a_pause() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.listed.append(ModelEntry("gone", path="missing"))
        async with routing(source, 2) as server:
            source.failures["one"] = "it is broken."
            for _ in range(2):
                reply = await server.chat(model="one")
                assert reply.status == 503 and "it is broken." in reply.error["message"]
                assert reply.headers["Retry-After"] == "1"
            assert source.n_loads == 1, "the second did not try again"
            status = await status_of(server, "one")
            assert status["failed"] and status["reason"] == "it is broken."
            assert (await server.chat(model="two")).status == 200
            del source.failures["one"]
            await asyncio.sleep(1.0)
            assert (await server.chat(model="one")).status == 200
            assert (await server.chat(model="gone")).status == 500

    run(body)


def test_a_model_whose_file_is_gone_when_its_turn_comes_fails_alone() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two", "three")
        source.gates["one"] = threading.Semaphore(0)
        async with routing(source) as server:
            first = asyncio.create_task(server.chat(model="one"))
            await until_status(server, "one", "loaded")
            waits = asyncio.create_task(server.chat(model="two"))
            await asyncio.sleep(0.05)
            source.unplanned["two"] = "There is no such file any more."
            for _ in range(1000):
                source.gates["one"].release()
            assert (await first).status == 200
            reply = await waits
            assert reply.status == 503 and "no such file any more" in reply.error["message"]
            assert (await status_of(server, "two"))["failed"]
            assert (await server.chat(model="three")).status == 200
            assert (await server.post("/models/unload", {"model": "two"})).status == 400

    run(body)


def test_a_request_that_waits_learns_that_the_new_list_has_a_fault_in_its_model() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.gates["one"] = threading.Semaphore(0)
        async with routing(source) as server:
            first = asyncio.create_task(server.chat(model="one"))
            await until_status(server, "one", "loaded")
            waits = asyncio.create_task(server.chat(model="two"))
            await asyncio.sleep(0.05)
            source.listed[1] = ModelEntry("two", fault="Its section is wrong.")
            assert (await server.get("/models?reload=1")).status == 200
            reply = await waits
            assert reply.status == 503 and "Its section is wrong." in reply.error["message"]
            for _ in range(1000):
                source.gates["one"].release()
            assert (await first).status == 200 and source.n_loads == 1

    run(body)


def test_a_load_is_taken_back() -> None:
    async def body() -> None:
        source = ScriptedSource("one")
        source.may_load.clear()
        async with routing(source) as server:
            assert (await server.post("/models/load", {"model": "one"})).status == 200
            waits = asyncio.create_task(server.chat(model="one"))
            await until_status(server, "one", "loading")
            await asyncio.sleep(0.05)
            assert (await server.post("/models/unload", {"model": "one"})).status == 200
            reply = await waits
            assert reply.status == 503 and "unloaded by hand" in reply.error["message"]
            await until_status(server, "one", "unloaded")
            await asyncio.sleep(0.05)
            assert source.n_loads == 1 and not source.running
            source.may_load.set()
            assert (await server.chat(model="one")).status == 200

    run(body)


def test_a_model_that_needs_more_when_its_turn_comes_has_others_leave_first() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        needs = iter([GB, 8 * GB, 8 * GB])

        def needed_bytes(entry: ModelEntry) -> int:
            return next(needs) if entry.name == "two" else 4 * GB

        source.needed_bytes = needed_bytes  # type: ignore[method-assign]
        async with serving_models(source.pool(0, memory=10 * GB)) as server:
            assert (await server.chat(model="one")).status == 200
            assert (await server.chat(model="two")).status == 200
            assert [one.entry.name for one in source.running] == ["two"]

    run(body)


def test_a_model_that_cannot_be_loaded_is_listed_with_its_reason() -> None:
    """One that is not downloaded is no failure; the list that is mended serves both."""

    async def body() -> None:
        source = ScriptedSource("one")
        broken = ModelEntry("broken", ("b",), fault="Its section is wrong.")
        missing = ModelEntry("x/y:Q8_0", fault="It is not on this machine.", is_downloaded=False)
        source.listed += [broken, missing]
        async with routing(source, 2) as server:
            rows = {row["id"]: row["status"] for row in (await server.get("/models")).json["data"]}
            assert rows["broken"] == {
                "value": "unloaded", "failed": True, "exit_code": 1,
                "reason": "Its section is wrong.", "args": [],
            }  # fmt: skip
            assert rows["x/y:Q8_0"] == {
                "value": "unloaded", "downloaded": False, "reason": "It is not on this machine.",
                "args": [],
            }  # fmt: skip
            assert (await server.chat(model="one")).status == 200
            for name, status, code in (
                ("b", 503, "model_failed"), ("x/y:Q8_0", 404, "model_not_downloaded"),
            ):  # fmt: skip
                asked = {"model": name}
                replies = [
                    await server.chat(model=name), await server.get(f"/props?model={name}"),
                    await server.get(f"/slots?model={name}"),
                    await server.post("/models/load", asked), await server.post("/api/show", asked),
                ]  # fmt: skip
                for reply in replies:
                    assert reply.status == status, reply.json
                    told = reply.json["error"]
                    text = told if isinstance(told, str) else told["message"]
                    assert "cannot be loaded: It" in text
                assert replies[0].error["code"] == code
            tags = (await server.get("/api/tags")).json["models"]
            assert [row["name"] for row in tags] == ["one:latest", "broken:latest"]
            source.listed[1:] = [ModelEntry("broken"), ModelEntry("x/y:Q8_0")]
            assert (await server.get("/models?reload=1")).status == 200
            for name in ("broken", "x/y:Q8_0"):
                assert (await server.chat(model=name)).status == 200
            source.listed[1] = broken
            assert (await server.get("/models?reload=1")).status == 200
            await until(lambda: len(source.running) < 2)
            assert (await server.chat(model="broken")).status == 503

    run(body)


def test_an_engine_that_dies_takes_no_other_along() -> None:
    gates = {name: threading.Semaphore(3) for name in ("one", "two")}

    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.gates = gates
        async with routing(source, 2) as server:
            asking = [asyncio.create_task(server.chat(model=name, stream=True)) for name in gates]
            await until(lambda: len([e for e in source.running if e.engine.running]) == 2)
            source.named("one").client.engine_died("The engine ended (killed by SIGKILL).")
            await until(lambda: len(source.running) == 1)
            gates["two"].release(1000)
            broken, whole = await asyncio.gather(*asking)
            assert b"SIGKILL" in broken.data and b"error" in broken.data
            assert b"".join(whole.lines).count(b"content") > 1 and whole.lines[-1] == b"[DONE]"
            gates["one"].release(1000)
            await asyncio.sleep(1.0)
            assert (await server.chat(model="one")).status == 200

    run(body)


def test_a_busy_model_is_waited_for_and_who_leaves_gives_up_the_place() -> None:
    gate = threading.Semaphore(0)

    async def body() -> None:
        source = ScriptedSource("one", "two", "three")
        source.gates["one"] = gate
        async with routing(source) as server:
            first = asyncio.create_task(server.chat(model="one"))
            await until(lambda: bool(source.running) and bool(source.running[0].engine.running))
            leaving = asyncio.create_task(server.chat(model="two"))
            staying = asyncio.create_task(server.chat(model="three"))
            waiting = (await server.get("/stats")).json
            while waiting["n_waiting"] < 2:
                waiting = (await server.get("/stats")).json
            leaving.cancel()
            while (await server.get("/stats")).json["n_waiting"] > 1:
                await asyncio.sleep(0.005)
            assert not staying.done() and source.n_loads == 1
            gate.release(1000)
            assert (await first).status == (await staying).status == 200
            assert source.n_loads == 2

    run(body)


def test_a_stream_that_goes_on_without_its_client_keeps_its_model() -> None:
    gate = threading.Semaphore(0)

    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.gates["one"] = gate
        async with routing(source) as server:
            headers = {"X-Conversation-Id": "talk"}
            asked = orjson.dumps({"model": "one", "messages": HI, "stream": True})
            path = f"{server.url}/v1/chat/completions"
            async with server.session.post(path, data=asked, headers=headers):
                await until(lambda: bool(source.running[0].engine.running))
            other = asyncio.create_task(server.chat(model="two"))
            await asyncio.sleep(0.1)
            assert not other.done() and source.named("one").engine.running
            gate.release(1000)
            assert (await other).status == 200
            kept = await server.get("/v1/stream?conv_id=talk")
            assert kept.lines[-1] == b"[DONE]"

    run(body)


def test_a_stream_waits_for_its_model_without_its_client_and_ends_by_its_conversation() -> None:
    """A page that is reloaded, or stopped, while the model loads."""

    async def body() -> None:
        source = ScriptedSource("one")
        async with routing(source) as server:
            source.may_load.clear()
            headers = {"X-Conversation-Id": "talk"}
            asked = orjson.dumps({"model": "one", "messages": HI, "stream": True})
            path = f"{server.url}/v1/chat/completions"
            leaving = asyncio.create_task(server.session.post(path, data=asked, headers=headers))
            await until_status(server, "one", "loading")
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            early = await server.get("/v1/stream?conv_id=talk")
            assert early.status == 503 and early.headers["Retry-After"] == "1"
            source.may_load.set()
            while (kept := await server.get("/v1/stream?conv_id=talk")).status == 503:
                await asyncio.sleep(0.01)
            assert kept.status == 200 and kept.lines[-1] == b"[DONE]"
            await server.post("/models/unload", {"model": "one"})
            await until(lambda: not source.running)
            source.may_load.clear()
            stopped = asyncio.create_task(server.session.post(path, data=asked, headers=headers))
            await until_status(server, "one", "loading")
            ended = await server.request("DELETE", "/v1/stream?conv_id=talk")
            assert ended.status == 204
            reply = await stopped
            assert reply.status == 400 and "was cancelled" in await reply.text()
            assert (await server.get("/v1/stream?conv_id=talk")).status == 404
            source.may_load.set()

    run(body)


def test_many_requests_over_few_places_are_all_answered() -> None:
    async def body() -> None:
        names = [f"m{i}" for i in range(5)]
        source = ScriptedSource(*names)
        source.needs = {name: (i + 1) * GB for i, name in enumerate(names)}
        async with routing(source, 2, memory=6 * GB) as server:
            asked = [names[i % 5] for i in range(40)]
            replies = await asyncio.gather(*(server.chat(model=name) for name in asked))
            for name, reply in zip(asked, replies, strict=True):
                assert reply.json["choices"][0]["message"]["content"] == f"I am {name}"
            assert len(source.running) <= 2 and source.n_loads < 15

    run(body)


def test_what_does_not_fit_is_refused_with_figures() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.needs["two"] = 9 * GB
        async with routing(source, 0, memory=8 * GB) as server:
            reply = await server.chat(model="two")
            assert reply.status == 503 and "9.00 GB" in reply.error["message"]
            assert "8.00 GB" in reply.error["message"] and "Retry-After" not in reply.headers
            assert (await server.chat(model="one")).status == 200

    run(body)


def test_the_list_is_read_again() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        async with routing(source, 2) as server:
            for name in ("one", "two"):
                assert (await server.chat(model=name)).status == 200
            source.is_wrong = True
            assert (await server.get("/models?reload=1")).status == 500
            source.is_wrong = False
            source.listed = [ModelEntry("two", args=("--ctx-size", "9")), ModelEntry("new")]
            rows = (await server.get("/models?reload=1")).json["data"]
            assert [row["id"] for row in rows] == ["two", "new"]
            assert [row["status"]["value"] for row in rows] == ["unloaded", "unloaded"]
            await until(lambda: not source.running)
            assert (await server.chat(model="one")).status == 404
            assert (await server.chat(model="new")).status == 200
            assert (await server.get("/models?reload=1")).json["data"][1]["status"] == {
                "value": "loaded", "args": [],
            }  # fmt: skip

    run(body)


def test_a_node_with_less_memory_than_was_thought_makes_others_leave() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.n_short["two"] = 1
        async with routing(source, 0) as server:
            assert (await server.chat(model="one")).status == 200
            assert (await server.chat(model="two")).status == 200
            assert [one.entry.name for one in source.running] == ["two"]

    run(body)


def test_who_waits_for_a_model_that_is_taken_off_the_list_is_told() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two")
        source.may_load.clear()
        async with routing(source) as server:
            asking = [asyncio.create_task(server.chat(model=name)) for name in ("one", "two")]
            await until(lambda: bool(source.running))
            while (await server.get("/stats")).json["n_waiting"] < 2:
                await asyncio.sleep(0.005)
            source.listed = [ModelEntry("three")]
            assert (await server.get("/models?reload=1")).status == 200
            for reply in await asyncio.gather(*asking):
                assert reply.status == 503 and "taken off the list" in reply.error["message"]
            await until(lambda: not source.running)
            source.may_load.set()
            assert (await server.chat(model="three")).status == 200

    run(body)


def test_ollamas_keep_alive() -> None:
    async def body() -> None:
        source = ScriptedSource("one", "two", idle_s=0.05)
        async with routing(source, 2) as server:

            async def generate(**more: object) -> Reply:
                return await server.post("/api/generate", {"model": "one:latest", **more})

            assert (await generate(keep_alive="5m")).json["done_reason"] == "load"
            assert (await server.chat(model="two")).status == 200
            await until_status(server, "two", "sleeping")
            [row] = (await server.get("/api/ps")).json["models"]
            assert row["name"] == "one:latest" and "expires_at" in row
            names = [row["name"] for row in (await server.get("/api/tags")).json["models"]]
            assert names == ["one:latest", "two:latest"]
            told = await generate(keep_alive=0)
            assert told.json["done_reason"] == "unload" and "X-Dllama-Ignored" not in told.headers
            await until_status(server, "one", "unloaded")
            assert (await generate(keep_alive=0)).json["done_reason"] == "unload"
            n_loads = source.n_loads
            reply = await generate(prompt="Hi", stream=False, keep_alive=-1)
            assert reply.json["response"] == "I am one" and source.n_loads == n_loads + 1
            await asyncio.sleep(0.2)
            assert (await status_of(server, "one"))["value"] == "loaded"

    run(body)


def test_a_server_that_stops_tells_those_who_wait() -> None:
    async def body() -> None:
        source = ScriptedSource("one")
        source.may_load.clear()
        async with routing(source) as server:
            asking = asyncio.create_task(server.chat(model="one"))
            await until(lambda: bool(source.running))
            await finish(server.app, 1.0)
            reply = await asking
            assert reply.status == 503 and "stop" in reply.error["message"]
        assert not source.running

    run(body)


def test_a_server_of_one_model_has_none_of_it() -> None:
    from api.engines.in_process import InProcessEngineClient
    from tests.api.serving import says, served, serving
    from tests.scripted_runner import ScriptedEngine

    async def body() -> None:
        async with serving(served(InProcessEngineClient(ScriptedEngine(says("a"))))) as server:
            for path in ("/models/load", "/models/unload"):
                assert (await server.post(path, {"model": "toy"})).status == 501
            assert (await server.get("/models/sse")).status == 501

    run(body)


@pytest.mark.parametrize("text", ["1.5h", "90m", "5400s", 5400, "5400"])
def test_durations(text: object) -> None:
    from api.requests.ollama.bodies import keep_alive

    assert keep_alive(text, "keep_alive") == 5400.0
