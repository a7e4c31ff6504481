"""Guessed tokens through the real forward pass: rows of a guess are computed together, on one or
more ranks, and everybody gets the tokens, and their probabilities, of plain decoding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllama.engine.engine import Engine
from dllama.engine.speculative.speculation import AUTO
from dllama.requests import Submit
from tests.dllama.engine.speculative.test_speculation import guesses
from tests.dllama.engine.test_sameness import CONTEXT, N_PAGES, asks
from tests.ranks_runner import RanksRunner
from tests.toy_models import write_toy

Told = dict[str, tuple[list[int], list[object]]]


def repetitive_asks() -> list[Submit]:
    """Those of test_sameness: some with probabilities, some with little to repeat, and some whose
    prompt says the same again and again."""
    made = []
    for i, submit in enumerate(asks()):
        params = replace(submit.sampling, n_probs=4 if i % 3 == 0 else None)
        tokens = submit.tokens if i % 2 else (submit.tokens[:6] * 20)[: len(submit.tokens)]
        made.append(replace(submit, tokens=tokens, sampling=params))
    return made


def answers(runner: RanksRunner, speculate: int, **limits: int) -> tuple[Told, Engine]:
    # Steps of equal length by the engine's own clock: how prompts are cut, and with it which rows
    # are left for drafts, must not depend on what else the machine does.
    ticks = itertools.count()
    engine = Engine(
        runner, speculate=speculate, max_batch=limits.get("max_batch", 16),
        max_step_tokens=limits.get("max_step_tokens", 112), clock=lambda: next(ticks) * 1e-3,
    )  # fmt: skip
    told: Told = {submit.id: ([], []) for submit in repetitive_asks()}
    for submit in repetitive_asks():
        engine.submit(submit)
    while engine.has_work():
        for output in engine.step():
            assert output.error is None
            told[output.id][0].extend(output.tokens)
            told[output.id][1].extend(output.probs or [])
        engine.scheduler.check_integrity()
    return told, engine


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speculation") / "toy.gguf"
    return write_toy(path, max_seq_len=CONTEXT)


@pytest.fixture(scope="module")
def runner(toy: Path) -> Iterator[RanksRunner]:
    made = RanksRunner(toy, 1, n_pages=N_PAGES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(runner: RanksRunner) -> Told:
    told, _ = answers(runner, 0)
    assert all(len(probs) in (0, len(tokens)) for tokens, probs in told.values())
    return told


@pytest.mark.parametrize("speculate", [1, 7, 30, AUTO])
def test_one_rank(runner: RanksRunner, plain: Told, speculate: int) -> None:
    told, engine = answers(runner, speculate)
    assert told == plain
    if speculate != AUTO:
        n_drafted, n_accepted = guesses(engine)
        assert 0 < n_accepted < n_drafted


def test_few_pages_and_rows(runner: RanksRunner, plain: Told) -> None:
    runner.n_pages = CONTEXT // 32 + 2  # fewer than there are: sequences are pre-empted
    try:
        told, engine = answers(runner, 6, max_batch=5, max_step_tokens=23)
    finally:
        runner.n_pages = N_PAGES
    assert told == plain
    assert engine.scheduler.n_preempted > 0 and guesses(engine)[1] > 0


def test_three_ranks(toy: Path, plain: Told) -> None:
    runner = RanksRunner(toy, 3, n_pages=N_PAGES)
    alone, _ = answers(runner, 0)
    told, engine = answers(runner, 7, max_batch=7, max_step_tokens=50)
    runner.close()
    assert told == alone and guesses(engine)[1] > 0
    tokens = {name: tokens for name, (tokens, _) in plain.items()}
    assert {name: tokens for name, (tokens, _) in told.items()} == tokens
