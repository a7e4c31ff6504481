"""Models, health, stats, tokens, keys and origins."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.models.fixed import FixedModels
from api.served_model import ModelFacts
from dllama.errors import ClusterError, ConfigError
from tests.api.serving import (
    CREATED,
    MAX_SEQ_LEN,
    VOCAB_SIZE,
    ask,
    run,
    says,
    served,
    serving,
    serving_engine,
    tokenizer,
)
from tests.scripted_runner import ScriptedEngine


def test_models_are_listed_and_shown() -> None:
    async def body() -> None:
        model = served(InProcessEngineClient(ScriptedEngine(says("a"))), "org/toy", ("t",))
        facts = ModelFacts(
            file_type="Q4_0", vocab_type=2, n_ctx_train=512, n_embd=64, n_params=9, size_bytes=10
        )
        model = replace(model, facts=facts)
        async with serving(model) as server:
            listed = (await server.get("/v1/models")).json
            assert listed == (await server.get("/models")).json
            assert listed["object"] == "list"
            assert listed["data"] == [
                {
                    "id": "org/toy",
                    "object": "model",
                    "created": CREATED,
                    "owned_by": "dllama",
                    "aliases": ["t"],
                    "tags": [],
                    "meta": {
                        "vocab_type": 2, "n_vocab": VOCAB_SIZE, "n_ctx": MAX_SEQ_LEN,
                        "n_ctx_train": 512, "n_embd": 64, "n_params": 9, "size": 10,
                        "ftype": "Q4_0",
                    },
                }
            ]  # fmt: skip
            assert [shown["name"] for shown in listed["models"]] == ["org/toy"]
            for name in ("org/toy", "t"):
                assert (await server.get(f"/v1/models/{name}")).json == listed["data"][0]

    run(body)


def test_two_models_of_one_name_and_no_model_are_refused() -> None:
    engine = InProcessEngineClient(ScriptedEngine(says("a")))
    with pytest.raises(ConfigError, match="'b'"):
        FixedModels([served(engine, "a", ("b",)), served(engine, "b")])
    with pytest.raises(ConfigError, match="no model"):
        FixedModels([])


def test_health_and_index() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            for path in ("/health", "/v1/health"):
                reply = await server.get(path)
                assert (reply.status, reply.json) == (200, {"status": "ok"})
            headers = {"Accept": "application/json"}
            told = (await server.get("/", headers=headers)).json
            assert set(told) == {"ollama", "server", "routes"}
            routes = told["routes"]
            known = {
                f"{route.method} {route.resource.canonical}"
                for route in server.app.router.routes()
                if route.resource
            }
            assert set(routes) <= known

    run(body)


def test_stats_are_the_engines_and_the_servers() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("abc def"))) as server:
            empty = (await server.get("/stats")).json
            assert empty["latency_ms"]["ttft_p50"] == 0.0  # the engine's
            assert empty["api"]["latency_ms"]["ttft_p50"] is None
            await server.complete()
            await server.chat(stream=True)
            stats = (await server.get("/stats")).json
            n_requests = 2
            # Tokens that arrive together have no time between them.
            while stats["api"]["latency_ms"]["itl_p50"] is None:
                await server.complete()
                n_requests += 1
                stats = (await server.get("/stats")).json
            assert stats["model"] == "toy"
            assert stats["state"] == "ready"
            assert stats["workers"] == [{"rank": 0}]
            assert stats["api"]["requests"] == n_requests
            assert stats["api"]["open_requests"] == 0
            for latency in (stats["latency_ms"], stats["api"]["latency_ms"]):
                assert 0 < latency["ttft_p50"] <= latency["ttft_p95"]
                assert 0 < latency["itl_p50"] <= latency["itl_p95"]

    run(body)


def test_stats_of_an_engine_that_cannot_answer() -> None:
    class Mute(InProcessEngineClient):
        error: Exception | None = None

        async def stats(self):
            if self.error is not None:
                raise self.error
            await asyncio.sleep(60)

    async def body() -> None:
        client = Mute(ScriptedEngine(says("a")))
        config = ApiConfig(stats_timeout_s=0.01)
        async with serving(served(client), config=config) as server:
            reply = await server.get("/stats")
            assert reply.status == 200
            assert "busy" in reply.json["detail"]
            client.error = ClusterError("it is gone")
            assert (await server.get("/stats")).json["detail"] == "it is gone"

    run(body)


def test_a_body_may_begin_with_a_byte_order_mark() -> None:
    """As the files do that some editors write, and curl sends."""

    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            for text, status in (
                ('{"content": ""}', 200),
                ("", 400),
                ('\ufeff{"content": ""}', 400),
            ):
                data = text.encode("utf-8-sig")
                reply = await server.request("POST", "/tokenize", data=data)
                assert reply.status == status

    run(body)


def test_tokenize_and_detokenize() -> None:
    text = "Hello<|im_end|> wörld"
    plain = tokenizer().encode(text)
    special = tokenizer().encode(text, parse_special=True)
    bos = tokenizer().bos_id

    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            for fields, wanted in (
                ({}, special),
                ({"parse_special": False}, plain),
                ({"add_special": True}, [bos, *special]),
            ):
                reply = await server.post("/tokenize", {"content": text, **fields})
                assert reply.json == {"tokens": wanted}
            reply = await server.post("/detokenize", {"tokens": special})
            assert reply.json == {"content": text}
            reply = await server.post("/tokenize", {"content": "ö", "with_pieces": True})
            assert reply.json == {
                "tokens": [
                    {"id": i, "piece": [b]} for i, b in zip([195, 182], b"\xc3\xb6", strict=True)
                ]
            }
            reply = await server.post("/tokenize", {"content": "hi", "with_pieces": True})
            assert "".join(token["piece"] for token in reply.json["tokens"]) == "hi"
            long = "long text ☕ " * 3000
            ids = (await server.post("/tokenize", {"content": long})).json["tokens"]
            assert (await server.post("/detokenize", {"tokens": ids})).json["content"] == long
            for path, body, param in (
                ("/tokenize", {}, "content"),
                ("/tokenize", {"content": 5}, "content"),
                ("/tokenize", {"content": "", "add_special": 1}, "add_special"),
                ("/detokenize", {}, "tokens"),
                ("/detokenize", {"tokens": ["a"]}, "tokens"),
                ("/detokenize", {"tokens": [VOCAB_SIZE]}, "tokens"),
                ("/detokenize", {"tokens": [-1]}, "tokens"),
                ("/apply-template", {"messages": []}, "messages"),
            ):
                reply = await server.post(path, body)
                assert (reply.status, reply.error["param"]) == (400, param)

    run(body)


def test_apply_template() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    reply = ask(
        ScriptedEngine(says("a")),
        lambda server: server.post("/apply-template", {"messages": messages}),
    )
    assert reply.json == {"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}


def test_keys_are_asked_for_everywhere_but_in_public_places() -> None:
    async def body() -> None:
        config = ApiConfig(api_keys=("secret", "ключ"))
        async with serving_engine(ScriptedEngine(says("a")), config) as server:
            for path in ("/", "/health", "/v1/health"):
                reply = await server.get(path)
                assert reply.status == 200 and b"toy" not in reply.data
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Bearer"},
                {"Authorization": "Basic secret"},
                {"X-Api-Key": "secre"},
                {"X-Api-Key": ""},
            ):
                for path in ("/v1/models", "/models", "/v1/models/toy", "/stats", "/v1/nothing"):
                    reply = await server.get(path, headers=headers)
                    assert reply.status == 401, (path, headers)
                    assert reply.error["type"] == "authentication_error"
                    is_openai = path.startswith("/v1/")
                    assert reply.error["code"] == ("invalid_api_key" if is_openai else 401)
            for headers in (
                {"Authorization": "Bearer secret"},
                {"Authorization": "bearer ключ"},
                {"X-Api-Key": "secret"},
            ):
                assert (await server.get("/stats", headers=headers)).status == 200
            assert (await server.request("OPTIONS", "/v1/models")).status == 200

    run(body)


def test_origins() -> None:
    async def body(origins: tuple[str, ...], welcome: list[str], unwelcome: list[str]) -> None:
        config = ApiConfig(cors_origins=origins)
        async with serving_engine(ScriptedEngine(says("a")), config) as server:
            for origin in welcome:
                named, streamed = {"Origin": origin}, {"prompt": "a", "stream": True}
                for reply in (
                    await server.get("/v1/nothing", headers=named),
                    await server.post("/v1/completions", streamed, headers=named),
                    await server.request("OPTIONS", "/v1/models", headers=named),
                ):
                    assert reply.headers["Vary"] == "Origin"
                    assert reply.headers["Access-Control-Allow-Origin"] == origin
                    assert reply.headers["Access-Control-Allow-Credentials"] == "true"
            for origin in unwelcome:
                reply = await server.get("/health", headers={"Origin": origin})
                assert "Access-Control-Allow-Origin" not in reply.headers
                assert reply.headers["Vary"] == "Origin"
            assert "Vary" not in (await server.get("/health")).headers

    run(lambda: body(("*",), ["https://a.example", "null"], []))
    run(
        lambda: body(
            ("localhost", "https://b.example"),
            ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:5", "https://b.example"],
            ["https://a.example", "http://localhost.evil.example", "http://[", "null"],
        )
    )


def test_preflight_allows_what_was_asked_for() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("a"))) as server:
            reply = await server.request(
                "OPTIONS",
                "/v1/chat/completions",
                headers={
                    "Origin": "https://a.example",
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "authorization,content-type",
                },
            )
            assert (reply.status, reply.data) == (200, b"")
            assert reply.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
            assert "POST" in reply.headers["Access-Control-Allow-Methods"]
            reply = await server.get("/health", headers={"Origin": "https://a.example"})
            assert reply.headers["Access-Control-Allow-Origin"] == "https://a.example"
            stream = await server.post(
                "/v1/completions",
                {"prompt": "a", "stream": True},
                headers={"Origin": "https://a.example"},
            )
            assert stream.headers["Access-Control-Allow-Origin"] == "https://a.example"

    run(body)
