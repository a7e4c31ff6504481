"""The official client of OpenAI against a listening server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from api.config import ApiConfig
from tests.api.listening import listening
from tests.api.serving import VOCAB_SIZE, says, tokenizer
from tests.scripted_runner import ScriptedEngine, with_logprobs

openai = pytest.importorskip("openai", reason="the official client is a test extra")

TEXT = "Hello wörld ☕! And more."
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(says(TEXT), max_len=10**6)


@pytest.fixture(scope="module")
def url(engine: ScriptedEngine) -> Iterator[str]:
    with listening(engine, ApiConfig(api_keys=("secret",))) as url:
        yield url + "/v1"


@pytest.fixture
def client(url: str) -> Iterator[object]:
    with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
        yield client


def test_chat(client) -> None:
    answer = client.chat.completions.create(model="toy", messages=HI, temperature=0, max_tokens=100)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(tokenizer().encode(TEXT))
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_logprobs() -> None:
    ids = tokenizer().encode(TEXT)
    other = max(set(range(VOCAB_SIZE)) - set(ids))
    rows = [with_logprobs({token: -0.5, other: -1.5}, VOCAB_SIZE) for token in ids]
    with (
        listening(ScriptedEngine(lambda submit: [*rows, *says("")(submit)])) as url,
        openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client,
    ):
        ask = {"model": "toy", "messages": HI, "logprobs": True, "top_logprobs": 2}
        ask["temperature"] = 0
        said = client.chat.completions.create(**ask).choices[0].logprobs.content
        assert b"".join(bytes(entry.bytes) for entry in said).decode() == TEXT
        assert [entry.logprob for entry in said] == pytest.approx([-0.5] * len(ids), abs=1e-6)
        assert all(len(entry.top_logprobs) == 2 for entry in said)
        streamed = [
            entry
            for chunk in client.chat.completions.create(**ask, stream=True)
            for choice in chunk.choices
            if choice.logprobs
            for entry in choice.logprobs.content
        ]
        assert streamed == said
        told = client.completions.create(model="toy", prompt="Hi", logprobs=1, temperature=0)
        text = told.choices[0].logprobs
        assert text.token_logprobs == pytest.approx([-0.5] * len(ids), abs=1e-6)
        assert text.tokens == [entry.token for entry in said]
        assert text.text_offset[:2] == [0, 1] and len(text.top_logprobs) == len(said)


def test_streamed_chat(client) -> None:
    stream = client.chat.completions.create(
        model="toy", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(tokenizer().encode(TEXT))


def test_the_clients_own_stream_helper(client) -> None:
    with client.chat.completions.stream(model="toy", messages=HI) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == TEXT


def test_completions_whole_and_streamed(client) -> None:
    whole = client.completions.create(model="toy", prompt=["a", "b"], stop="wörld")
    assert [c.text for c in whole.choices] == ["Hello ", "Hello "]
    chunks = list(client.completions.create(model="toy", prompt="a", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == TEXT


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["toy"]
    assert client.models.retrieve("toy").owned_by == "dllama"


def test_errors_are_the_clients_own_classes(client, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="toy", messages=HI, temperature="hot")
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("other")
    assert unknown.value.code == "model_not_found"
    assert client.chat.completions.create(model="gpt-4o", messages=HI).model == "toy"
    with (
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.completions.create(model="toy", prompt="a")


def test_leaving_a_stream_frees_the_sequence(client, engine: ScriptedEngine) -> None:
    before = engine.script
    engine.script = says("x", ends=False)
    try:
        stream = client.chat.completions.create(model="toy", messages=HI, stream=True)
        next(iter(stream))
        stream.close()
        deadline = threading.Event()
        for _ in range(2000):
            if not engine.running:
                break
            deadline.wait(0.01)
        assert not engine.running
    finally:
        engine.script = before


def test_the_async_client(url: str) -> None:
    async def body() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="toy", messages=HI) for _ in range(5))
            )
            assert {a.choices[0].message.content for a in answers} == {TEXT}

    asyncio.run(body())
