"""Texts as vectors, through the routes; what the vectors are is tested with the engine."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from api.config import AnswerDefaults
from api.engines.in_process import InProcessEngineClient
from api.routes.embeddings import normalised
from api.served_model import ModelFacts
from tests.api.listening import listening
from tests.api.serving import (
    VOCAB_SIZE,
    ImpatientClient,
    run,
    says,
    served,
    serving,
    serving_engine,
    tokenizer,
)
from tests.scripted_runner import ScriptedEngine, hidden_state


def vector_of(ids: list[int], norm: int = 2, pooling: str = "mean") -> np.ndarray:
    """The pooled states of a text, as the scripted runner computes them."""
    states = np.array([hidden_state(token, i) for i, token in enumerate(ids)])
    pooled = states.mean(axis=0) if pooling == "mean" else states[-1]
    return normalised(pooled.astype(np.float32), norm)


def ids_of(text: str) -> list[int]:
    return tokenizer().encode(text, add_special=True)


def test_inputs_of_every_form() -> None:
    engine = ScriptedEngine(says("x"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            for given, wanted in (
                ("Hello", [ids_of("Hello")]),
                (["Hello", "you there"], [ids_of("Hello"), ids_of("you there")]),
                ([65, 66], [[65, 66]]),
                ([[65], [66, 67]], [[65], [66, 67]]),
            ):
                reply = await server.post("/v1/embeddings", {"input": given, "model": "toy"})
                assert reply.status == 200, reply.data
                found = reply.json
                assert found["object"] == "list" and found["model"] == "toy"
                assert found["usage"]["prompt_tokens"] == sum(map(len, wanted))
                assert [entry["index"] for entry in found["data"]] == list(range(len(wanted)))
                for entry, ids in zip(found["data"], wanted, strict=True):
                    np.testing.assert_allclose(entry["embedding"], vector_of(ids), rtol=1e-6)
            assert not engine.running
            assert {(s.pooling, s.cache_prompt) for s in engine.submitted} == {("mean", False)}

    run(body)


def test_base64_pooling_norms_and_the_native_routes() -> None:
    engine = ScriptedEngine(says("x"))

    async def body() -> None:
        model = replace(served(InProcessEngineClient(engine)), facts=ModelFacts(n_embd=4))
        async with serving(model) as server:
            request = {"input": "Hi", "encoding_format": "base64", "dimensions": 4}
            reply = await server.post("/v1/embeddings", {**request, "user": "me"})
            raw = base64.b64decode(reply.json["data"][0]["embedding"])
            np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), vector_of(ids_of("Hi")))
            for path in ("/embedding", "/embeddings"):
                reply = await server.post(
                    path, {"content": "Hi", "embd_normalize": -1, "pooling": "last"}
                )
                assert reply.json[0]["index"] == 0
                assert reply.json[0]["embedding"] == [list(vector_of(ids_of("Hi"), -1, "last"))]
            assert engine.submitted[-1].pooling == "last"
            for fields, param in (
                ({"input": None}, "input"),
                ({"input": ""}, None),
                ({"input": []}, "input"),
                ({"input": [[]]}, "input"),
                ({"input": ["a"] * 200}, "input"),
                ({"input": [VOCAB_SIZE]}, "input"),
                ({"dimensions": 3}, "dimensions"),
                ({"encoding_format": "int8"}, "encoding_format"),
                ({"pooling": "max"}, "pooling"),
            ):
                reply = await server.post("/v1/embeddings", {"input": "Hi", **fields})
                if param is not None:  # BOS alone is a text too
                    assert (reply.status, reply.error["param"]) == (400, param), fields

    run(body)


def test_ids_and_texts_are_mixed() -> None:
    engine = ScriptedEngine(says("x"))
    encode = tokenizer().encode

    async def body() -> None:
        async with serving_engine(engine) as server:
            for given, wanted in (
                ([65, "ab", 66], [[65, *encode("ab"), 66]]),
                (["ab", 65], [[*ids_of("ab"), 65]]),
                (["ab", [65, 66]], [ids_of("ab"), [65, 66]]),
                ([[65, "ab"], "c"], [[65, *encode("ab")], ids_of("c")]),
                ({"prompt_string": "ab"}, [ids_of("ab")]),
            ):
                for path in ("/v1/embeddings", "/embedding"):
                    engine.submitted.clear()
                    reply = await server.post(path, {"input": given})
                    assert reply.status == 200, (given, reply.data)
                    assert [submit.tokens for submit in engine.submitted] == wanted

    run(body)


def test_without_pooling_every_token_has_a_vector() -> None:
    engine = ScriptedEngine(says("x"))

    async def body() -> None:
        defaults = AnswerDefaults(pooling="none", embd_normalize=-1)
        plain = served(InProcessEngineClient(engine), defaults=defaults)
        model = replace(plain, facts=ModelFacts(n_embd=4))
        async with serving(model) as server:
            ids = ids_of("Hello")
            [told] = (await server.post("/embedding", {"content": "Hello"})).json
            assert told["embedding"] == [list(hidden_state(t, i)) for i, t in enumerate(ids)]
            own = {"content": "Hello", "pooling": "last", "embd_normalize": 2}
            [told] = (await server.post("/embedding", own)).json
            np.testing.assert_allclose(told["embedding"], [vector_of(ids, 2, "last")], rtol=1e-6)
            refused = await server.post("/v1/embeddings", {"input": "Hello"})
            assert (refused.status, refused.error["param"]) == (400, "pooling")
            pooled = await server.post("/v1/embeddings", {"input": "Hello", "pooling": "mean"})
            assert pooled.status == 200
        wide = replace(model, facts=ModelFacts(n_embd=1 << 19))
        async with serving(wide) as server:
            reply = await server.post("/embedding", {"content": "Hello"})
            assert reply.status == 400 and "too large" in reply.error["message"]

    run(body)


def test_norms() -> None:
    vector = np.array([3.0, -4.0], np.float32)
    for norm, wanted in (
        (-1, [3, -4]), (0, [24570, -32760]), (1, [3 / 7, -4 / 7]), (2, [0.6, -0.8]),
        (1000, [0.75, -1]),
    ):  # fmt: skip
        np.testing.assert_allclose(normalised(vector, norm), wanted, rtol=1e-3)
    huge = np.array([1e30, 0], np.float32)
    np.testing.assert_allclose(normalised(huge, 2), [1, 0])
    np.testing.assert_array_equal(normalised(np.zeros(3, np.float32), 2), np.zeros(3))


def test_the_official_client() -> None:
    openai = pytest.importorskip("openai", reason="the official client is a test extra")
    with (
        listening(ScriptedEngine(says("x"))) as url,
        openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client,
    ):
        found = client.embeddings.create(model="toy", input=["a", "b"])  # asks for base64
        for entry, text in zip(found.data, "ab", strict=True):
            np.testing.assert_allclose(entry.embedding, vector_of(ids_of(text)), rtol=1e-6)


def test_an_engine_that_is_lost_is_a_503() -> None:
    engine = ScriptedEngine(says("x"))
    engine.runner.loses_node, engine.runner.n_recover_failures = True, 10**9

    async def body() -> None:
        async with serving_engine(engine, client=ImpatientClient) as server:
            reply = await server.post("/v1/embeddings", {"input": ["a", "b"]})
            assert reply.status == 503

    run(body)
