"""Whole and streamed answers: texts, counts, finish reasons, what the engine is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.engines.open_sequence import merged
from dllama.requests import Output, Submit
from tests.api.serving import (
    MAX_SEQ_LEN,
    Reply,
    ask,
    run,
    says,
    serving_engine,
    tokenizer,
    until,
)
from tests.scripted_runner import ScriptedEngine

TEXT = "Hello wörld ☕! 👍🏽"


def texts(reply: Reply, index: int = 0) -> str:
    """The text of one choice of a stream."""
    pieces = []
    for event in reply.events:
        for choice in event["choices"]:
            if choice["index"] == index:
                text = choice["delta"].get("content") if "delta" in choice else choice["text"]
                pieces.append(text or "")
    return "".join(pieces)


def test_a_chat_answer_is_whole_and_counted() -> None:
    engine = ScriptedEngine(says(TEXT))
    ask(engine, lambda server: server.chat(max_tokens=2))  # leaves the prompt in the cache
    reply = ask(engine, lambda server: server.chat())
    body = reply.json
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "toy"
    assert body["system_fingerprint"].startswith("build-dllama")
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == TEXT
    assert choice["finish_reason"] == "stop"
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    prompt = tokenizer().encode(rendered, add_special=True, parse_special=True)
    assert engine.submitted[0].tokens == prompt
    n_answer = len(tokenizer().encode(TEXT))
    assert body["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": n_answer,
        "total_tokens": len(prompt) + n_answer,
        "prompt_tokens_details": {"cached_tokens": len(prompt) - 1},
    }
    timings = body["timings"]
    assert (timings["cache_n"], timings["prompt_n"]) == (len(prompt) - 1, 1)
    assert timings["predicted_n"] == n_answer
    assert all(value >= 0 for value in timings.values())


def test_a_chat_stream_is_what_openai_documents() -> None:
    engine = ScriptedEngine(says(TEXT))
    reply = ask(
        engine, lambda server: server.chat(stream=True, stream_options={"include_usage": True})
    )
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    events = reply.events
    assert {e["object"] for e in events} == {"chat.completion.chunk"}
    assert len({(e["id"], e["created"], e["model"], e["system_fingerprint"]) for e in events}) == 1
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert all(e["choices"][0]["delta"].get("content") != "" for e in events[:-1])
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]] == [None] * (len(events) - 2) + [
        "stop"
    ]
    assert events[-2]["choices"][0]["delta"] == {}
    assert texts(reply) == TEXT
    assert all(e["usage"] is None for e in events[:-1])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == len(tokenizer().encode(TEXT))
    assert "timings" in events[-1]
    assert not any("timings" in e for e in events[:-1])


def test_without_include_usage_there_is_none_and_the_last_chunk_has_timings() -> None:
    reply = ask(ScriptedEngine(says(TEXT)), lambda server: server.chat(stream=True))
    assert not any("usage" in e for e in reply.events)
    assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"
    assert "timings" in reply.events[-1]


def test_text_completions_whole_and_streamed() -> None:
    whole = ask(ScriptedEngine(says(TEXT)), lambda server: server.complete())
    body = whole.json
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
    ]
    streamed = ask(ScriptedEngine(says(TEXT)), lambda server: server.complete(stream=True))
    assert texts(streamed) == TEXT
    assert streamed.events[-1]["choices"][0] == {
        "index": 0, "text": "", "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "kept", "last_token"),
    [("wörld", "Hello ", "d"), (["zzz", "☕!", "rld ☕"], "Hello wö", None), ("H", "", "H")],
)
def test_stop_strings_across_tokens_end_the_sequence(stream, stop, kept, last_token) -> None:
    engine = ScriptedEngine(says(TEXT, ends=False), max_len=10**9)

    async def body() -> None:
        async with serving_engine(engine) as server:
            reply = await server.complete(stop=stop, stream=stream, max_tokens=10**6)
            if stream:
                assert texts(reply) == kept
                assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"
            else:
                assert reply.json["choices"][0]["text"] == kept
                assert reply.json["choices"][0]["finish_reason"] == "stop"
                if last_token:
                    ids = tokenizer().encode(TEXT)
                    end = (kept + stop).encode()
                    spelled = [tokenizer().decode(ids[: i + 1]).encode() for i in range(len(ids))]
                    n = next(i for i, text in enumerate(spelled) if text.startswith(end)) + 1
                    assert reply.json["usage"]["completion_tokens"] == n
            await until(lambda: not engine.running)
            assert len(engine.aborted) == 1

    run(body)


class LateClient(InProcessEngineClient):
    """Gives a reader everything at once, when the engine is done."""

    async def submit(self, submit: Submit) -> AsyncIterator[Output]:
        yield merged([output async for output in super().submit(submit)])


def test_tokens_behind_a_stop_string_are_not_counted() -> None:
    """Also where they came together with it."""
    body = ask(
        ScriptedEngine(says(TEXT)), lambda server: server.complete(stop="wö"), client=LateClient
    ).json
    assert body["choices"][0]["text"] == "Hello " and body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(tokenizer().encode("Hello wö"))


def test_half_a_stop_string_at_the_end_is_text() -> None:
    reply = ask(ScriptedEngine(says("It is a sto")), lambda server: server.complete(stop="stop"))
    assert reply.json["choices"][0] == {
        "index": 0, "text": "It is a sto", "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip


def test_max_tokens_cuts_and_says_length_even_inside_a_character() -> None:
    coffee = tokenizer().encode("☕")
    assert len(coffee) == 3
    for name in ("max_tokens", "max_completion_tokens"):
        reply = ask(
            ScriptedEngine(says("☕☕")), lambda server, name=name: server.complete(**{name: 4})
        )
        assert reply.json["choices"][0]["text"] == "☕\ufffd"
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert reply.json["usage"]["completion_tokens"] == 4


def test_the_end_of_the_context_says_length() -> None:
    engine = ScriptedEngine(says("x" * 300, ends=False), max_len=MAX_SEQ_LEN)
    reply = ask(engine, lambda server: server.complete([1, 2, 3]))
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.json["usage"]["total_tokens"] == MAX_SEQ_LEN


def test_every_end_of_generation_token_ends_and_ignore_eos_draws_none() -> None:
    for end in tokenizer().eog_ids:
        engine = ScriptedEngine(lambda submit, end=end: [72, end, 73])
        assert ask(engine, lambda server: server.complete()).json["choices"][0]["text"] == "i"[
            :0
        ] + tokenizer().decode([72])
    engine = ScriptedEngine(lambda submit: [72, tokenizer().eos_id, 73])
    reply = ask(engine, lambda server: server.complete(ignore_eos=True, max_tokens=3))
    assert engine.submitted[0].stop_ids == []
    bias = engine.submitted[0].sampling.logit_bias
    assert bias == dict.fromkeys(tokenizer().eog_ids, float("-inf"))
    assert reply.json["choices"][0]["text"].startswith(tokenizer().decode([72]))
    assert reply.json["choices"][0]["finish_reason"] == "length"
    native = ask(engine, lambda s: s.post("/completion", {"prompt": "a", "ignore_eos": True}))
    told = native.json["generation_settings"]["logit_bias"]
    assert sorted(entry["token"] for entry in told) == sorted(tokenizer().eog_ids)
    assert {entry["bias"] for entry in told} == {None}


def test_n_answers_have_seeds_one_apart_and_share_the_prompt() -> None:
    engine = ScriptedEngine(lambda submit: [97 - 32 + submit.sampling.seed % 10] * 3)
    reply = ask(engine, lambda server: server.chat(n=3, seed=5, max_tokens=3))
    assert [s.sampling.seed for s in engine.submitted] == [5, 6, 7]
    assert len({s.id for s in engine.submitted}) == 3
    said = [c["message"]["content"] for c in reply.json["choices"]]
    assert said == [tokenizer().decode([65 + k] * 3) for k in (5, 6, 7)]
    assert [c["index"] for c in reply.json["choices"]] == [0, 1, 2]
    usage = reply.json["usage"]
    assert usage["completion_tokens"] == 9
    assert usage["prompt_tokens"] == len(engine.submitted[0].tokens)


def test_n_answers_in_one_stream() -> None:
    engine = ScriptedEngine(lambda submit: [65 + submit.sampling.seed] * (3 + submit.sampling.seed))
    reply = ask(
        engine,
        lambda server: server.chat(
            n=4, seed=0, max_tokens=6, stream=True, stream_options={"include_usage": True}
        ),
    )
    for k in range(4):
        mine = [e["choices"][0] for e in reply.events if e["choices"]]
        mine = [c for c in mine if c["index"] == k]
        assert mine[0]["delta"]["role"] == "assistant"
        assert mine[-1]["finish_reason"] == "length"
        assert [c["finish_reason"] for c in mine[:-1]] == [None] * (len(mine) - 1)
        assert texts(reply, k).startswith(tokenizer().decode([65 + k] * 3))
    assert reply.events[-1]["usage"]["completion_tokens"] == 24
    assert sum("timings" in e for e in reply.events) == 1


def test_many_streams_at_once_do_not_mix() -> None:
    engine = ScriptedEngine(lambda submit: [submit.tokens[-1]] * 20)

    async def body() -> None:
        async with serving_engine(engine) as server:
            replies = await asyncio.gather(
                *(server.complete([1, 65 + k], max_tokens=20, stream=k % 2 == 0) for k in range(24))
            )
            for k, reply in enumerate(replies):
                wanted = tokenizer().decode([65 + k] * 20)
                got = texts(reply) if k % 2 == 0 else reply.json["choices"][0]["text"]
                assert got == wanted

    run(body)


def test_routes_without_v1_answer_alike() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("hi"))) as server:
            body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x"}
            chat = await server.post("/chat/completions", {"messages": body["messages"]})
            text = await server.post("/completions", {"prompt": "x"})  # llama-server's own
            assert chat.json["choices"][0]["message"]["content"] == "hi"
            assert text.json["content"] == "hi"

    run(body)


def test_fields_that_say_off_or_do_not_matter_are_taken() -> None:
    fields = {
        "user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
        "logprobs": False, "top_logprobs": None, "tools": [], "tool_choice": "none",
        "response_format": {"type": "text"}, "n": 1, "stop": [], "logit_bias": {}, "seed": None,
        "stream": None, "stream_options": None, "mirostat": 0, "modalities": ["text"],
    }  # fmt: skip
    assert ask(ScriptedEngine(says("a")), lambda server: server.chat(**fields)).status == 200
    fields = {"echo": False, "suffix": None, "best_of": 1, "logprobs": None}
    assert ask(ScriptedEngine(says("a")), lambda server: server.complete(**fields)).status == 200


def test_a_stream_that_waits_long_is_opened_and_pinged() -> None:
    import threading

    gate = threading.Semaphore(0)
    engine = ScriptedEngine(says("late"), gate=gate)
    config = ApiConfig(headers_after_s=0.01, ping_s=0.01)

    async def body() -> None:
        async with serving_engine(engine, config) as server:
            url = server.url + "/v1/completions"
            async with server.session.post(url, json={"prompt": "a", "stream": True}) as response:
                assert response.status == 200
                assert await response.content.readline() == b":\n"
                gate.release(1000)
                rest = await response.read()
                assert b'"finish_reason":"stop"' in rest
                assert rest.endswith(b"data: [DONE]\n\n")

    run(body)
