"""Probabilities of tokens, as clients see them, against a float64 log-softmax of the logits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from api.engines.in_process import InProcessEngineClient
from api.replies.logprobs import token_label
from dllama.engine.engine import Engine
from dllama.requests import FinishReason, Output, Submit, TokenProbs
from dllama.step import LogitRow, Step
from tests.api.serving import VOCAB_SIZE, Reply, run, served, serving, serving_engine, tokenizer
from tests.dllama.engine.history_runner import HistoryRunner, logit_row
from tests.scripted_runner import ScriptedEngine, with_logprobs

PROMPT = [65, 66, 67, 68, 69]


def known_logits(token: int, position: int) -> np.ndarray:
    rng = np.random.default_rng([token, position])
    return (rng.standard_normal(VOCAB_SIZE) * 2.0).astype(np.float32)


class KnownRunner(HistoryRunner):
    """The logits depend on a row's token and position alone."""

    def __init__(self) -> None:
        super().__init__(vocab_size=VOCAB_SIZE, max_seq_len=256)

    def run(self, step: Step) -> list[LogitRow]:
        return [
            logit_row(known_logits(int(step.tokens[row]), int(step.positions[row])), n)
            for row, n in zip(step.logits_at.tolist(), step.candidates.tolist(), strict=True)
        ]


def log_softmax(history: list[int]) -> np.ndarray:
    x = known_logits(history[-1], len(history) - 1).astype(np.float64)
    return x - x.max() - math.log(np.exp(x - x.max()).sum())


def ask_real(*requests: tuple[str, dict[str, object]]) -> list[Reply]:
    """The replies of a real engine whose logits are known for every history."""
    replies: list[Reply] = []

    async def body() -> None:
        engine = Engine(KnownRunner())
        async with serving(served(InProcessEngineClient(engine))) as server:
            for route, fields in requests:
                if route == "chat":
                    replies.append(await server.chat(**fields))
                else:
                    replies.append(await server.complete(PROMPT, **fields))

    run(body)
    assert all(reply.status == 200 for reply in replies), [reply.data[:300] for reply in replies]
    return replies


FIELDS: dict[str, object] = {"max_tokens": 12, "ignore_eos": True, "seed": 5}


@pytest.mark.parametrize(
    "more",
    [
        {"n_probs": 4},
        {"n_probs": 300},
        {"n_probs": 4, "temperature": 0},
        {"n_probs": 4, "top_k": 0, "logit_bias": {"70": 8, "71": -100}, "repeat_penalty": 1.3},
        {"n_probs": 4, "mirostat": 2},
    ],
)
def test_native_probabilities_are_those_of_the_logits(more: dict[str, object]) -> None:
    [reply] = ask_real(("text", {**FIELDS, **more}))
    content = reply.json["choices"][0]["logprobs"]["content"]
    history = list(PROMPT)
    assert len(content) == 12
    for entry in content:
        expected = log_softmax(history)
        n = int(str(more["n_probs"]))
        assert abs(entry["logprob"] - expected[entry["id"]]) < 1e-4
        assert bytes(entry["bytes"]) == tokenizer().token_bytes(entry["id"])
        top = entry["top_logprobs"]
        assert [other["id"] for other in top] == np.argsort(-expected, kind="stable")[:n].tolist()
        assert all(abs(other["logprob"] - expected[other["id"]]) < 1e-4 for other in top)
        history.append(entry["id"])


def test_probabilities_after_sampling() -> None:
    more = {"n_probs": 300, "post_sampling_probs": True, "top_k": 5, "min_p": 0, "top_p": 1}
    [reply] = ask_real(("text", {**FIELDS, **more, "temperature": 0.5}))
    history = list(PROMPT)
    for entry in reply.json["choices"][0]["logprobs"]["content"]:
        logp = log_softmax(history)
        logp[list(tokenizer().eog_ids)] = -np.inf  # `ignore_eos`
        best = np.argsort(-logp, kind="stable")[:5]
        p = np.exp((logp[best] - logp[best[0]]) / 0.5)
        p /= p.sum()
        assert [other["id"] for other in entry["top_probs"]] == best.tolist()
        np.testing.assert_allclose([other["prob"] for other in entry["top_probs"]], p, rtol=1e-5)
        assert abs(entry["prob"] - p[best.tolist().index(entry["id"])]) < 1e-5
        history.append(entry["id"])


def test_chat_has_openais_shape_streamed_and_not() -> None:
    fields = {**FIELDS, "logprobs": True, "top_logprobs": 3}
    whole, streamed = ask_real(("chat", fields), ("chat", {**fields, "stream": True}))
    said = whole.json["choices"][0]["logprobs"]
    assert set(said) == {"content", "refusal"} and len(said["content"]) == 12
    for entry in said["content"]:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(entry["top_logprobs"]) == 3
        assert all(set(top) == {"token", "logprob", "bytes"} for top in entry["top_logprobs"])
        assert entry["token"] == token_label(bytes(entry["bytes"]))
    told = [
        entry
        for event in streamed.events
        for choice in event["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert told == said["content"]


def test_text_has_openais_four_lists() -> None:
    fields = {**FIELDS, "logprobs": 2}
    native, whole, streamed, none = ask_real(
        ("text", {**FIELDS, "n_probs": 2}),
        ("text", fields),
        ("text", {**fields, "stream": True}),
        ("text", {**FIELDS, "logprobs": 0}),
    )
    content = native.json["choices"][0]["logprobs"]["content"]
    choice = whole.json["choices"][0]
    said = choice["logprobs"]
    assert said["tokens"] == [entry["token"] for entry in content]
    assert said["token_logprobs"] == [entry["logprob"] for entry in content]
    for top, entry in zip(said["top_logprobs"], content, strict=True):
        alternatives = {other["token"]: other["logprob"] for other in entry["top_logprobs"]}
        assert top == alternatives | {entry["token"]: entry["logprob"]}
    assert said["text_offset"] == sorted(said["text_offset"])
    for offset, entry in zip(said["text_offset"], content, strict=True):
        data = bytes(entry["bytes"])
        if data.isascii() and entry["id"] not in tokenizer().eog_ids and data.isalnum():
            rest = choice["text"][offset:].lstrip("\ufffd")  # of a part of a character before
            assert rest.startswith(data.decode())
    parts = [e["choices"][0]["logprobs"] for e in streamed.events if e["choices"][0]["logprobs"]]
    assert {key: [x for part in parts for x in part[key]] for key in said} == said
    assert none.json["choices"][0]["logprobs"]["top_logprobs"] == [{}] * 12


def test_nobody_asked() -> None:
    whole, streamed = ask_real(("chat", FIELDS), ("chat", {**FIELDS, "stream": True}))
    assert whole.json["choices"][0]["logprobs"] is None
    assert all(c["logprobs"] is None for e in streamed.events for c in e["choices"])


def test_a_drawn_seed_is_told_and_gives_the_answer_again() -> None:
    async def body() -> None:
        engine = Engine(KnownRunner())
        async with serving(served(InProcessEngineClient(engine))) as server:
            fields: dict[str, object] = {"max_tokens": 20, "ignore_eos": True, "n": 2}
            first = (await server.complete(PROMPT, seed=-1, temperature=1.5, **fields)).json
            seed = first["seed"]
            again = (await server.complete(PROMPT, seed=seed, temperature=1.5, **fields)).json
            assert [c["text"] for c in again["choices"]] == [c["text"] for c in first["choices"]]
            other = (await server.complete(PROMPT, temperature=1.5, **fields)).json
            assert other["seed"] != seed
            stream = await server.complete(PROMPT, seed=7, stream=True, **fields)
            assert stream.events[-1]["seed"] == 7

    run(body)


def script(*texts: str) -> list[int]:
    return [token for text in texts for token in tokenizer().encode(text)]


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_stop_string_are_not_told(stream: bool) -> None:
    """Nor are parts of a character told before it, or lost."""
    tokens = script("a☕b", "STOP", "never")
    rows = [with_logprobs({token: -0.5}, VOCAB_SIZE) for token in tokens]

    async def body() -> None:
        async with serving_engine(ScriptedEngine(lambda submit: rows)) as server:
            reply = await server.chat(logprobs=True, stop="STOP", stream=stream, temperature=0)
            if stream:
                parts = [c["logprobs"] for e in reply.events for c in e["choices"]]
                content = [entry for part in parts if part for entry in part["content"]]
            else:
                assert reply.json["choices"][0]["message"]["content"] == "a☕b"
                content = reply.json["choices"][0]["logprobs"]["content"]
            assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "a☕b"
            assert all(entry["top_logprobs"] is not None for entry in content)
            told = [entry["logprob"] for entry in content]
            assert told == pytest.approx([-0.5] * len(content), abs=1e-6)

    run(body)


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    assert token_label(b"ab") == "ab"
    assert token_label(b"\xe2\x98") == "bytes:\\xe2\\x98"


def test_outputs_that_piled_up_keep_their_probabilities() -> None:
    from api.engines.open_sequence import merged

    one = Output("a", [1], probs=[TokenProbs(1, -1.0, [], [])])
    two = Output("a", [2], FinishReason.LENGTH, probs=[TokenProbs(2, -2.0, [], [])])
    both = merged([one, two])
    assert both.probs is not None and [probs.token for probs in both.probs] == both.tokens
    assert merged([Output("a", [1]), Output("a", [2])]).probs is None


def test_n_answers_have_their_own_seeds_and_samplings() -> None:
    seen: list[Submit] = []

    async def body() -> None:
        engine = ScriptedEngine(lambda submit: script("x"))
        async with serving_engine(engine) as server:
            reply = await server.chat(
                n=3, seed=11, max_tokens=1, samplers="kt", dry_multiplier=0.5, mirostat=1,
                dry_sequence_breakers=["\n"], min_keep=2, dynatemp_range=0.5, typical_p=0.5,
                logit_bias={"x": False, "66": 1}, n_probs=0,
            )  # fmt: skip
            assert reply.status == 200, reply.data
            seen.extend(engine.submitted)

    run(body)
    assert [submit.sampling.seed for submit in seen] == [11, 12, 13]
    sampling = seen[0].sampling
    assert sampling.samplers == ("top_k", "temperature") and sampling.mirostat == 1
    assert (sampling.min_keep, sampling.dynatemp_range, sampling.typical_p) == (2, 0.5, 0.5)
    assert sampling.n_probs is None
    assert tokenizer().encode("\n")[0] in sampling.dry_breakers
    assert sampling.logit_bias == {tokenizer().encode("x")[0]: -math.inf, 66: 1.0}
