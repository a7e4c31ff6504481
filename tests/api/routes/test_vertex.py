"""Several requests in one, as Google's Vertex AI calls a container."""

from __future__ import annotations

import asyncio

import pytest

from api.config import ApiConfig, VertexRoutes
from api.routes.table import ROUTES
from api.routes.vertex import MAX_INSTANCES, format_name
from dllama.errors import ConfigError
from tests.api.serving import Reply, Server, ask, run, says, serving_engine, until
from tests.scripted_runner import ScriptedEngine

HI = [{"role": "user", "content": "Hi"}]
CHAT = {"@requestFormat": "chatCompletions", "messages": HI, "max_tokens": 8}
VERTEX = VertexRoutes("/predict", "/healthz")


def predict(*instances: object, **config: object) -> Reply:
    async def call(server: Server) -> Reply:
        return await server.post("/predict", {"instances": instances})

    return ask(ScriptedEngine(says("Yes.")), call, vertex=VERTEX, **config)


def test_each_instance_is_answered_by_its_route() -> None:
    told = predict(
        CHAT,
        {**CHAT, "@requestFormat": "/v1/chat/completions", "stream": True},
        {"@requestFormat": "completions", "prompt": ["a", "b"]},
        {"@requestFormat": "messages", "messages": HI, "max_tokens": 8},
        {"@requestFormat": "apiGenerate", "prompt": "Hi"},
        {"@requestFormat": "tokenize", "content": "Hi"},
        {"@requestFormat": "applyTemplate", "messages": HI},
        {"@requestFormat": "embeddings", "input": "Hi"},
    ).json["predictions"]
    assert [answer["choices"][0]["message"]["content"] for answer in told[:2]] == ["Yes."] * 2
    assert [choice["text"] for choice in told[2]["choices"]] == ["Yes."] * 2
    assert told[3]["content"][0]["text"] == "Yes." and told[4]["response"] == "Yes."
    assert told[5]["tokens"] and "user\nHi" in told[6]["prompt"]
    assert told[7]["object"] == "list" and told[7]["data"][0]["embedding"]


def test_a_wrong_instance_leaves_the_others_alone() -> None:
    reply = predict(
        CHAT, {**CHAT, "n": "many"}, 5, {"messages": HI}, {**CHAT, "@requestFormat": "predict"},
        {"@requestFormat": "messages"},
    )  # fmt: skip
    good, field, number, none, unknown, anthropic = reply.json["predictions"]
    assert reply.status == 200 and good["choices"]
    assert field["error"]["param"] == "n"
    assert number["error"]["param"] == "instances[2]"
    assert none["error"]["param"] == "instances[3].@requestFormat"
    assert "chatCompletions" in unknown["error"]["message"]
    assert anthropic["type"] == "error" and "`messages`" in anthropic["error"]["message"]


def test_how_many_instances_there_may_be() -> None:
    assert predict().json == {"predictions": []}
    tokens = {"@requestFormat": "tokenize", "content": "Hi"}
    assert len(predict(*[tokens] * MAX_INSTANCES).json["predictions"]) == MAX_INSTANCES
    reply = predict(*[tokens] * (MAX_INSTANCES + 1))
    assert reply.status == 400 and str(MAX_INSTANCES) in reply.error["message"]

    async def call(server: Server) -> Reply:
        return await server.post("/predict", {"inputs": []})

    assert ask(ScriptedEngine(says("a")), call, vertex=VERTEX).error["param"] == "instances"


def test_it_is_there_on_vertex_only_and_health_needs_no_key() -> None:
    async def body() -> None:
        engine = ScriptedEngine(says("Yes."))
        async with serving_engine(engine) as server:
            assert (await server.post("/predict", {"instances": []})).status == 404
        config = ApiConfig(api_keys=("secret",), vertex=VERTEX)
        async with serving_engine(engine, config) as server:
            assert (await server.get("/healthz")).json == {"status": "ok"}
            assert (await server.post("/predict", {"instances": []})).status == 401

    run(body)


def test_a_client_that_leaves_ends_every_answer() -> None:
    engine = ScriptedEngine(says("word " * 40, ends=False), max_len=10**6)

    async def body() -> None:
        config = ApiConfig(vertex=VERTEX)
        async with serving_engine(engine, config) as server:
            endless = {**CHAT, "max_tokens": 10**6}
            post = asyncio.create_task(server.post("/predict", {"instances": [endless] * 3}))
            await until(lambda: len(engine.running) == 3)
            post.cancel()
            await until(lambda: len(engine.aborted) == 3)

    run(body)


def test_names_of_routes() -> None:
    assert format_name("/v1/chat/completions") == "chatCompletions"
    assert format_name("/apply-template") == "applyTemplate"
    assert format_name("/v1/messages/count_tokens") == "messagesCountTokens"
    assert format_name("/infill") == "infill"


@pytest.mark.parametrize(
    "wrong", [VertexRoutes("/completion"), VertexRoutes("/predict", "/v1/models"),
              VertexRoutes("/predict", "/predict"), VertexRoutes("/health", "/health")]
)  # fmt: skip
def test_a_path_of_another_route_is_refused(wrong: VertexRoutes) -> None:
    with pytest.raises(ConfigError, match="another route"):
        ask(ScriptedEngine(says("a")), lambda server: server.get("/health"), vertex=wrong)


def test_the_usual_health_may_be_vertexs_too() -> None:
    config = VertexRoutes("/predict", "/health")
    health = ask(ScriptedEngine(says("a")), lambda server: server.get("/health"), vertex=config)
    assert health.status == 200
    assert any("/health" in route.paths for route in ROUTES)
