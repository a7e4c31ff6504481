"""The model that comes with dllama: what answers where no model is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.chat import ChatTemplate, find_template, template_stop_ids
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.engine.engine import Engine
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.tokenizer import Tokenizer
from tests.local_model import Ranks, local_runner, make_step
from tests.programs import root, workers

GOLDEN = json.loads(Path(__file__).with_name("golden_answers.json").read_text())
"""Greedy answers to a few questions, letter for letter."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)


@pytest.fixture(scope="module")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return find_template(GgufFile(DEFAULT_MODEL).metadata, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with local_runner(DEFAULT_MODEL, n_pages=128) as runner:
        yield Engine(runner, max_step_tokens=112)


def _prompt(question: str, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    text = template.render([{"role": "user", "content": question}])
    return tokenizer.encode(text, parse_special=True)


def _answers(
    engine: Engine, questions: list[str], tokenizer: Tokenizer, template: ChatTemplate
) -> dict[str, tuple[str, FinishReason | None]]:
    """Greedy answers, all asked at once."""
    stops = sorted(tokenizer.eog_ids | template_stop_ids(template, tokenizer))
    for i, question in enumerate(questions):
        ids = _prompt(question, tokenizer, template)
        engine.submit(Submit(str(i), ids, SamplingParams(temperature=0), stops, 300))
    found: dict[str, list[int]] = {str(i): [] for i in range(len(questions))}
    ends: dict[str, FinishReason | None] = {}
    while engine.has_work():
        for output in engine.step():
            found[output.id] += output.tokens
            ends[output.id] = output.finish
    return {
        question: (tokenizer.decode(found[str(i)]), ends[str(i)])
        for i, question in enumerate(questions)
    }


def test_it_is_small_and_shards_over_four_nodes() -> None:
    config = open_model(DEFAULT_MODEL).config
    assert DEFAULT_MODEL.stat().st_size <= 8_000_000
    assert (config.dim, config.max_seq_len) == (256, 2048)
    assert config.n_kv_heads >= 4


def test_it_answers_as_it_did(engine: Engine, tokenizer: Tokenizer, template: ChatTemplate) -> None:
    answers = _answers(engine, list(GOLDEN), tokenizer, template)
    assert {q: text for q, (text, _) in answers.items()} == GOLDEN


def test_every_answer_ends_by_itself(
    engine: Engine, tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    questions = [*GOLDEN, "asdf qwer", "Wie geht es dir?", "def f(x):\n    return", "?", "x" * 400]
    for question, (_, end) in _answers(engine, questions, tokenizer, template).items():
        assert end is FinishReason.STOP, question


def test_several_tokens_end_a_turn(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    stops = tokenizer.eog_ids | template_stop_ids(template, tokenizer)
    assert len(stops) >= 2
    assert all(tokenizer.is_special(i) for i in stops)


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 5])
def test_ranks_agree_with_one_machine(
    tokenizer: Tokenizer, template: ChatTemplate, n_ranks: int
) -> None:
    """Its weights are Q8_0: sums in another order may tip an int8 activation, so logits are near
    and the greedy token is the same."""
    prompt = _prompt("What is dllama?", tokenizer, template)
    with local_runner(DEFAULT_MODEL) as runner:
        [whole] = runner.run(make_step([(0, prompt, 0)]))
    group = ThreadGroup(n_ranks)
    comms = [ThreadCollective(group, i) for i in range(n_ranks)]
    ranks = Ranks(DEFAULT_MODEL, [1.0] * n_ranks, comms)
    try:
        [row] = ranks.run(make_step([(0, prompt, 0)]))
    finally:
        ranks.close()
    assert row.logits.argmax() == whole.logits.argmax()
    assert np.abs(row.logits - whole.logits).max() < 0.5
    first = ranks.models[0].state.x[: len(prompt)]
    assert all(np.array_equal(m.state.x[: len(prompt)], first) for m in ranks.models[1:])


def test_it_is_served_where_no_model_is_named(tmp_path: Path) -> None:
    """Two workers, a root, a chat: what `make run` starts."""
    with (
        workers(tmp_path, 2) as addresses,
        root(
            tmp_path, DEFAULT_MODEL, "--workers", ",".join(addresses), "--shares", "equal"
        ) as server,
    ):
        _, models = server.get("/v1/models")
        assert [m["id"] for m in models["data"]] == ["dllama-demo.q8_0"]
        status, answer = server.post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "What is dllama?"}], "temperature": 0},
        )
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == GOLDEN["What is dllama?"]
