"""The nodes over HTTP: listed, added, removed, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from api.config import ApiConfig
from api.routes import nodes
from dllama.nodes import NodeRow, NodesAction
from tests.api.serving import run, says, serving_engine
from tests.scripted_runner import ScriptedEngine

ROOT = {
    "address": "root", "state": "present", "share": 1.0, "since_s": 2.5, "reason": "", "rank": 0,
    "kv_heads": 0, "hidden": 0, "rss_bytes": None, "memory_bytes": None,
}  # fmt: skip


def test_nodes_are_listed_added_and_removed() -> None:
    engine = ScriptedEngine(says("x"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            told = await server.request("GET", "/cluster/nodes")
            assert told.status == 200 and told.json["nodes"] == [ROOT]
            told = await server.post("/cluster/nodes", {"address": "a:9998", "share": 2})
            assert told.status == 200, told.data
            assert [row["address"] for row in told.json["nodes"]] == ["root", "a:9998"]
            await server.post("/cluster/nodes", {"address": "[::1]:9"})
            stats = (await server.request("GET", "/stats")).json
            assert [row["address"] for row in stats["unused_nodes"]] == ["a:9998", "[::1]:9"]
            for path, fields in (
                ("/cluster/nodes", {"address": "a:9998"}),
                ("/cluster/nodes/%5B%3A%3A1%5D:9", None),
                ("/cluster/nodes?address=root", None),
            ):
                told = await server.request("DELETE", path, json=fields)
                assert told.status == 200, told.data
            assert told.json["nodes"] == []

    run(body)
    called = [(call.action, call.address, call.share) for call in engine.runner.node_calls]
    assert called == [
        (NodesAction.ADD, "a:9998", 2.0), (NodesAction.ADD, "[::1]:9", 1.0),
        (NodesAction.REMOVE, "a:9998", 1.0), (NodesAction.REMOVE, "[::1]:9", 1.0),
        (NodesAction.REMOVE, "root", 1.0),
    ]  # fmt: skip


def test_what_is_refused_is_a_sentence() -> None:
    engine = ScriptedEngine(says("x"))
    engine.runner.refusal = "the worker a:9998 was not added: it does not answer"

    async def body() -> None:
        async with serving_engine(engine) as server:
            told = await server.post("/cluster/nodes", {"address": "a:9998"})
            assert (told.status, told.error["param"]) == (400, "address")
            assert told.error["message"] == engine.runner.refusal
            for fields, param in (
                ({}, "address"),
                ({"address": 5}, "address"),
                ({"address": "a" * 300}, "address"),
                ({"address": "a", "share": 0}, "share"),
                ({"address": "a", "share": "2"}, "share"),
            ):
                told = await server.post("/cluster/nodes", fields)
                assert (told.status, told.error["param"]) == (400, param), fields
            told = await server.request("DELETE", "/cluster/nodes")
            assert (told.status, told.error["param"]) == (400, "address")

    run(body)
    assert len(engine.runner.node_calls) == 1


def test_a_key_is_asked_for() -> None:
    async def body() -> None:
        config = ApiConfig(api_keys=("secret",))
        async with serving_engine(ScriptedEngine(says("x")), config) as server:
            for method in ("GET", "POST", "DELETE"):
                assert (await server.request(method, "/cluster/nodes")).status == 401

    run(body)


def test_nodes_are_seen_and_added_while_a_lost_one_is_waited_for() -> None:
    engine = ScriptedEngine(says("x"))
    runner = engine.runner
    runner.node_rows.append(NodeRow("b:9998", "away", 1.0, 1.0, "it does not answer"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            runner.n_recover_failures, runner.loses_node = 1_000_000, True
            while (await server.request("GET", "/health")).status == 200:
                await asyncio.sleep(0.01)
            told = await server.request("GET", "/cluster/nodes")
            assert told.json["nodes"][1]["reason"] == "it does not answer"
            assert (await server.post("/cluster/nodes", {"address": "c"})).status == 200
            runner.n_recover_failures = 0

    run(body)


def test_a_change_that_takes_long_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(says("x"))
    monkeypatch.setattr(nodes, "PATIENCE_S", 0.05)
    monkeypatch.setattr(engine.runner, "node_replies", list)

    async def body() -> None:
        async with serving_engine(engine) as server:
            told = await server.post("/cluster/nodes", {"address": "a"})
            assert told.status == 503 and "GET /cluster/nodes shows" in told.error["message"]
            assert (await server.request("GET", "/cluster/nodes")).status == 200

    run(body)
