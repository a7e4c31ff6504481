"""The official client of Anthropic against a listening server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.config import ApiConfig
from tests.api.listening import listening
from tests.api.serving import ImpatientClient, says, tokenizer
from tests.scripted_runner import ScriptedEngine

anthropic = pytest.importorskip("anthropic", reason="the official client is a test extra")

TEXT = "Hello wörld ☕! And more."
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(says(TEXT), max_len=10**6)


@pytest.fixture(scope="module")
def url(engine: ScriptedEngine) -> Iterator[str]:
    with listening(engine, ApiConfig(api_keys=("secret",)), ImpatientClient) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[object]:
    with anthropic.Anthropic(base_url=url, api_key="secret", max_retries=0) as client:
        yield client


def prompt_of(engine: ScriptedEngine) -> str:
    """What the model read last."""
    return tokenizer().decode(engine.submitted[-1].tokens)


def test_a_message(client, engine) -> None:
    answer = client.messages.create(
        model="toy",
        max_tokens=100,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            *HI,
            {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "user", "content": [{"type": "text", "text": "And"}]},
        ],
        extra_body={"temperature": 0},
        metadata={"user_id": "me"},
    )
    assert answer.type == "message" and answer.role == "assistant" and answer.model == "toy"
    assert [block.text for block in answer.content] == [TEXT]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens == len(tokenizer().encode(TEXT))
    assert answer.usage.input_tokens == len(engine.submitted[-1].tokens)
    assert engine.submitted[-1].sampling.temperature == 0
    for piece in ("system\nBe brief.", "user\nHi", "assistant\nHello.", "user\nAnd"):
        assert piece in prompt_of(engine)


def test_cached_tokens_are_no_input(client, engine) -> None:
    for _ in range(2):
        usage = client.messages.create(model="toy", max_tokens=9, messages=HI).usage
    assert usage.input_tokens == 1  # the last token of a prompt is always computed
    assert usage.cache_read_input_tokens == len(engine.submitted[-1].tokens) - 1


def test_why_it_stopped(client) -> None:
    cut = client.messages.create(model="toy", max_tokens=3, messages=HI)
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 3
    word = client.messages.create(
        model="toy", max_tokens=90, messages=HI, stop_sequences=["wörld", "zzz"]
    )
    assert (word.stop_reason, word.stop_sequence) == ("stop_sequence", "wörld")
    assert word.content[0].text == "Hello "


def test_a_streamed_message(client) -> None:
    with client.messages.stream(model="toy", max_tokens=90, messages=HI) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == TEXT and final.stop_reason == "end_turn"
    assert final.usage.output_tokens == len(tokenizer().encode(TEXT))
    raw = [kind for kind in kinds if kind != "text"]
    deltas = raw.count("content_block_delta")
    assert raw == [
        "message_start", "content_block_start", *["content_block_delta"] * deltas,
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_a_prefilled_answer_is_gone_on_with(client, engine) -> None:
    client.messages.create(
        model="toy", max_tokens=9, messages=[*HI, {"role": "assistant", "content": "Well"}]
    )
    assert prompt_of(engine).endswith("<|im_start|>assistant\nWell")


def test_fields_of_this_server_and_thinking(client, engine) -> None:
    for thinking in ({"type": "enabled", "budget_tokens": 9}, {"type": "adaptive"}):
        client.messages.create(
            model="toy", max_tokens=9, messages=HI, thinking=thinking,
            extra_body={"seed": 7, "min_p": 0.2, "session_id": "me", "cache_prompt": False},
        )  # fmt: skip
    submit = engine.submitted[-1]
    assert (submit.sampling.seed, submit.sampling.min_p) == (7, 0.2)
    assert (submit.session_id, submit.cache_prompt) == ("me", False)


def test_tokens_are_counted(client, engine) -> None:
    n = client.messages.count_tokens(model="toy", messages=HI, system="Be brief.").input_tokens
    client.messages.create(model="toy", max_tokens=1, messages=HI, system="Be brief.")
    assert n == len(engine.submitted[-1].tokens)


def test_errors_are_the_clients_own_classes(client, url) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}}
    for wrong, named in (
        ({"extra_body": {"top_k": "x"}}, "top_k"),
        ({"messages": [{"role": "user", "content": [image]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "tool_choice",
        ),
        ({"extra_body": {"thread": {"type": "create"}}}, "thread"),
        ({"stop_sequences": [5]}, "stop_sequences"),
    ):
        with pytest.raises(anthropic.BadRequestError) as bad:
            client.messages.create(**{"model": "toy", "max_tokens": 5, "messages": HI, **wrong})
        assert bad.value.body["type"] == "error"
        assert bad.value.body["error"]["type"] == "invalid_request_error"
        assert named in bad.value.body["error"]["message"]
    other = client.messages.create(model="claude-sonnet-5", max_tokens=5, messages=HI)
    assert other.model == "toy"  # the only one, and it says so
    with (
        anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="toy", max_tokens=5, messages=HI)


def test_an_error_within_a_stream(client, engine) -> None:
    before = engine.script
    engine.script = says("x", ends=False)
    try:
        with client.messages.stream(model="toy", max_tokens=10**6, messages=HI) as stream:
            events = iter(stream)
            assert next(events).type == "message_start"
            engine.runner.loses_node = True
            with pytest.raises(anthropic.APIStatusError) as lost:
                list(events)
        assert lost.value.body["error"]["type"] == "overloaded_error"
        assert "node 1 is lost" in lost.value.body["error"]["message"]
    finally:
        engine.script, engine.runner.loses_node = before, False
