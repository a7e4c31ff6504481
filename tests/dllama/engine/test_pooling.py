"""Pooled hidden states: right against the head's own reading of them, however they are cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.config import ModelConfig
from dllama.engine.engine import Engine
from dllama.engine.sequence import POOLINGS, Pooler
from dllama.requests import FinishReason, Output, SamplingParams, Submit
from tests.local_model import Ranks, local_runner, make_step
from tests.toy_models import toy_tensor, write_toy

PROMPT = [int(i) for i in np.random.default_rng(5).integers(0, 256, 90)]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf")


def run_all(engine: Engine) -> list[Output]:
    outputs: list[Output] = []
    while engine.has_work():
        outputs += engine.step()
    return outputs


def embed(engine: Engine, pooling: str, tokens: list[int], name: str = "e") -> np.ndarray:
    engine.submit(Submit(name, tokens, pooling=pooling, cache_prompt=False))
    [done] = [out for out in run_all(engine) if out.id == name]
    assert done.finish is FinishReason.STOP, done.error
    assert done.embedding is not None and done.tokens == []
    return np.frombuffer(done.embedding, "<f4")


def states_of(path: Path) -> tuple[np.ndarray, ModelConfig]:
    """(tokens, dim) of the prompt, from steps of the runner alone."""
    with local_runner(path) as runner:
        step = make_step([(0, PROMPT, 0)])
        rows = np.arange(len(PROMPT), dtype=np.int32)
        runner.run(dataclasses.replace(step, hidden_at=rows))
        return runner.hidden.copy(), runner.config


def test_hidden_states_are_what_the_head_reads(path: Path) -> None:
    with local_runner(path) as runner:
        plain = make_step([(0, PROMPT[:40], 0)], every_row=True)
        alone = runner.run(plain)
        assert len(runner.hidden) == 0
        at = np.array([0, 7, 39], np.int32)
        logits = runner.run(dataclasses.replace(plain, hidden_at=at))
        wcls = toy_tensor(runner.config, "wcls", 0)
        for row, states in zip(at, runner.hidden, strict=True):
            np.testing.assert_array_equal(logits[row].logits, alone[row].logits)
            np.testing.assert_allclose(wcls @ states, logits[row].logits, atol=2e-3)


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 2.0, 5.0]])
def test_rank_0_of_a_cluster_has_the_states_of_one_machine(path: Path, shares: list[float]) -> None:
    step = make_step([(0, PROMPT, 0)])
    step = dataclasses.replace(step, hidden_at=np.array([0, 3, len(PROMPT) - 1], np.int32))
    with local_runner(path) as runner:
        runner.run(step)
        alone = runner.hidden.copy()
    group = ThreadGroup(len(shares))
    ranks = Ranks(path, shares, [ThreadCollective(group, i) for i in range(len(shares))])
    try:
        ranks.run(step)
        np.testing.assert_allclose(ranks.models[0].hidden, alone, atol=1e-4)
    finally:
        ranks.close()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("step_tokens", [7, 256])
def test_pooled_states_do_not_depend_on_the_chunks(
    path: Path, pooling: str, step_tokens: int
) -> None:
    states, _ = states_of(path)
    wanted = {"mean": states.mean(axis=0), "last": states[-1], "cls": states[0]}.get(
        pooling, states.ravel()
    )
    with local_runner(path) as runner:
        engine = Engine(runner, max_batch=4, max_step_tokens=step_tokens)
        np.testing.assert_allclose(embed(engine, pooling, PROMPT), wanted, rtol=1e-5, atol=1e-5)


def test_embeddings_beside_answers_change_neither(path: Path) -> None:
    with local_runner(path) as runner:
        engine = Engine(runner, max_batch=4, max_step_tokens=16)
        alone = embed(engine, "mean", PROMPT)
        greedy = SamplingParams(temperature=0)
        engine.submit(Submit("a", PROMPT[:50], greedy, max_tokens=20))
        answer = [t for out in run_all(engine) for t in out.tokens]
        engine.submit(Submit("a", PROMPT[:50], greedy, max_tokens=20))
        engine.submit(Submit("e", PROMPT, pooling="mean", cache_prompt=False))
        outputs = run_all(engine)
        assert [t for out in outputs if out.id == "a" for t in out.tokens] == answer
        [both] = [out for out in outputs if out.id == "e"]
        assert both.embedding == alone.tobytes()
        assert engine.stats()["kv"]["pages_used"] == 0  # type: ignore[index]


def test_several_embeddings_in_one_step_are_each_their_own(path: Path) -> None:
    with local_runner(path) as runner:
        engine = Engine(runner, max_batch=4, max_step_tokens=256)
        texts = {"x": PROMPT[:20], "y": PROMPT[30:60], "z": PROMPT[5:11]}
        alone = {name: embed(engine, "mean", tokens) for name, tokens in texts.items()}
        for name, tokens in texts.items():
            engine.submit(Submit(name, tokens, pooling="mean", cache_prompt=False))
        together = {out.id: out.embedding for out in engine.step()}
        assert together == {name: vector.tobytes() for name, vector in alone.items()}


def test_what_cannot_be_pooled_is_refused_by_name(path: Path) -> None:
    with local_runner(path) as runner:
        engine = Engine(runner)
        engine.submit(Submit("a", [1], pooling="max", cache_prompt=False))
        engine.submit(Submit("b", [1], pooling="mean"))
        reasons = [out.error or "" for out in run_all(engine)]
        assert "mean, last, cls" in reasons[0] and "cache_prompt=False" in reasons[1]


def test_progress_is_told_where_it_was_asked_for(path: Path) -> None:
    with local_runner(path) as runner:
        engine = Engine(runner, max_batch=4, max_step_tokens=20)
        engine.submit(Submit("a", PROMPT, max_tokens=1, wants_progress=True, cache_prompt=False))
        outputs = run_all(engine)
        assert [out.n_computed for out in outputs[:-1]] == [20, 40, 60, 80]
        assert [len(out.tokens) for out in outputs] == [0, 0, 0, 0, 1]


def test_a_pre_empted_sequence_starts_over() -> None:
    states = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    pooler = Pooler("mean")
    pooler.take(0, states[:5])
    pooler.take(0, states[:6])
    pooler.take(6, states[6:])
    np.testing.assert_allclose(pooler.vector(), states.mean(axis=0), rtol=1e-6)
    keeper = Pooler("none")
    keeper.take(0, states[:5])
    keeper.take(0, states[:6])
    keeper.take(6, states[6:])
    np.testing.assert_array_equal(keeper.vector(), states.ravel())
