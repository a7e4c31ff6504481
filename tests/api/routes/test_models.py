"""What the server tells of its models and of itself: names, tags, properties, its page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from api.config import AnswerDefaults, ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.served_model import ModelFacts, ServedModel
from tests.api.serving import run, says, served, serving, serving_engine
from tests.scripted_runner import ScriptedEngine


def named(*aliases: str, tags: tuple[str, ...] = ()) -> ServedModel:
    """A model as it is served under these aliases."""
    model = served(InProcessEngineClient(ScriptedEngine(says("x"))), aliases[0], aliases)
    return replace(model, file_name="file-name", tags=tags, facts=ModelFacts(path="/m/f.gguf"))


def test_the_first_alias_is_the_id_everywhere() -> None:
    async def body() -> None:
        async with serving(named("mine", "other", tags=("chat", "small"))) as server:
            listed = (await server.get("/v1/models")).json
            [entry] = listed["data"]
            assert (entry["id"], entry["aliases"]) == ("mine", ["mine", "other"])
            assert entry["tags"] == ["chat", "small"]
            assert listed["models"][0]["name"] == "mine"
            props = (await server.get("/props")).json
            assert (props["model_alias"], props["model_path"]) == ("mine", "/m/f.gguf")
            assert (await server.get("/stats")).json["model"] == "mine"
            for name in ("mine", "other", "file-name"):
                for path in ("/completion", "/v1/completions"):
                    reply = await server.post(path, {"prompt": "a", "model": name})
                    assert reply.json["model"] == "mine", name
                assert (await server.get(f"/v1/models/{name}")).json["id"] == "mine"

    run(body)


def test_properties_are_the_defaults_of_requests() -> None:
    async def body() -> None:
        fields = {"temperature": 0.5, "seed": 42, "stop": ["x"]}
        defaults = AnswerDefaults(fields=fields, n_predict=9)
        async with serving_engine(ScriptedEngine(says("x")), defaults=defaults) as server:
            params = (await server.get("/props")).json["default_generation_settings"]["params"]
            assert (params["temperature"], params["seed"], params["n_predict"]) == (0.5, 42, 9)
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            props = (await server.get("/props")).json
            assert props["default_generation_settings"]["params"]["seed"] == 2**32 - 1
            assert props["chat_template_caps"]["supports_system_role"] is True
            assert props["chat_template_caps"]["supports_tools"] is False

    run(body)


def test_properties_are_set_only_where_a_flag_allows_it() -> None:
    async def body() -> None:
        for takes, status in ((False, 501), (True, 200)):
            config = ApiConfig(takes_props=takes)
            async with serving_engine(ScriptedEngine(says("x")), config) as server:
                assert (await server.get("/props")).json["endpoint_props"] is takes
                reply = await server.post("/props", {})
                assert reply.status == status
                if takes:
                    assert reply.json == {"success": True}
                else:
                    assert "--props" in reply.error["message"]

    run(body)


def test_slots_may_be_hidden() -> None:
    async def body() -> None:
        config = ApiConfig(shows_slots=False)
        async with serving_engine(ScriptedEngine(says("x")), config) as server:
            reply = await server.get("/slots")
            assert reply.status == 501 and "--no-slots" in reply.error["message"]
            assert (await server.get("/props")).json["endpoint_slots"] is False

    run(body)


@pytest.mark.parametrize("prefix", ["", "/llm"])
def test_the_page_and_a_prefix(prefix: str) -> None:
    async def body() -> None:
        config = ApiConfig(prefix=prefix, api_keys=("secret",))
        async with serving_engine(ScriptedEngine(says("x")), config) as server:
            page, key = await server.get(f"{prefix}/"), {"Authorization": "Bearer secret"}
            assert page.headers["Content-Type"].startswith("text/html")
            assert page.data.startswith(b"<!doctype html>")
            for part in set(re.findall(rb'(?:href|src)="(page/[^"]+)"', page.data)):
                assert (await server.get(f"{prefix}/{part.decode()}")).status == 200
            assert (await server.get(f"{prefix}/page/secrets.js", headers=key)).status == 404
            assert (await server.get(f"{prefix}/health")).status == 200
            worker = await server.get(f"{prefix}/sw.js")
            assert "javascript" in worker.headers["Content-Type"]
            assert b"unregister" in worker.data
            manifest = (await server.get(f"{prefix}/manifest.webmanifest")).json
            assert manifest["start_url"] == f"{prefix}/"
            assert (await server.get(f"{prefix}/_app/version.json")).json["version"]
            assert (await server.get(f"{prefix}/v1/models")).status == 401
            assert (await server.get(f"{prefix}/v1/models", headers=key)).status == 200
            refused = await server.post(f"{prefix}/rerank", {}, headers=key)
            assert refused.status == 501 and "rank texts" in refused.error["message"]
            wrong = await server.post(f"{prefix}/v1/messages", {}, headers=key)
            assert wrong.status == 400 and wrong.json["type"] == "error"  # Anthropic's shape
            if prefix:
                assert (await server.get("/health", headers=key)).status == 404

    run(body)


@pytest.mark.parametrize("path", ["/cors-proxy", "/tools"])
def test_features_that_are_always_off(path: str) -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            for reply in (await server.get(path), await server.post(path, {})):
                assert (reply.status, reply.error["type"]) == (403, "feature_disabled")

    run(body)


def test_without_a_page() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("x")), ApiConfig(has_page=False)) as server:
            assert (await server.get("/")).status == 404
            told = await server.get("/", headers={"Accept": "application/json"})
            assert told.status == 200 and told.json["routes"]

    run(body)


def test_the_code_of_an_error() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            long = {"prompt": "x" * 5000}
            native = (await server.post("/completion", long)).error
            openai = (await server.post("/v1/completions", long)).error
            assert (native["code"], openai["code"]) == (400, "context_length_exceeded")
            for error in (native, openai):
                assert error["type"] == "exceed_context_size_error"
                assert "exceeds the available context size" in error["message"]
                assert error["n_prompt_tokens"] > error["n_ctx"] > 0
            for path in ("/completion", "/v1/completions"):
                assert (await server.post(path, {"prompt": 5})).error["code"] == 400

    run(body)
