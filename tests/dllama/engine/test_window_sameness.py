"""The promise of test_sameness for models whose layers have windows, far beyond these, with real
kernels: what is forked, found, shifted, saved or pre-empted answers as a fresh run does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import FULL_ATTENTION, LayerAttention
from dllama.engine.engine import Engine
from dllama.formats import open_model
from dllama.requests import SamplingParams, SessionAction, SessionCall, Submit
from dllama.runtime.local_runner import LocalRunner
from tests.dllama.engine.test_sameness import CONTEXT, N_PAGES, answers, answers_alone, ask, asks
from tests.local_model import make_step
from tests.ranks_runner import RanksRunner
from tests.toy_models import write_toy

GREEDY = SamplingParams(temperature=0.0)
NEAR = LayerAttention(window=20, has_local_rope=True)
TOYS: dict[str, dict[str, object]] = {
    "gemma3": {
        "n_layers": 3, "local_rope_theta": 500.0, "attention_layers": (NEAR, NEAR, FULL_ATTENTION),
    },
    "gpt-oss": {"attention_layers": (LayerAttention(window=20), FULL_ATTENTION), "seed": 2},
}  # fmt: skip


@pytest.fixture(scope="module", params=TOYS)
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows") / "toy.gguf"
    more = TOYS[request.param]
    return write_toy(path, arch=request.param, max_seq_len=CONTEXT, hidden_dim=32, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runner(toy: Path) -> Iterator[RanksRunner]:
    made = RanksRunner(toy, 1, n_pages=N_PAGES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(runner: RanksRunner) -> dict[str, list[int]]:
    return answers_alone(runner)


def test_pages_that_are_gone_change_no_logit(toy: Path, runner: RanksRunner) -> None:
    """A prompt whose steps name all pages, and one that goes round five pages of the window."""
    tokens = [(7 * k) % 350 for k in range(150)]
    rows = (
        runner.run(make_step([(0, tokens[:128], 0)])),
        runner.run(make_step([(0, tokens[128:], 128)], every_row=True)),
    )
    wanted = [row.logits.copy() for row in rows[1]]
    cuts = [0, 1, 40, 41, 100, 128, *range(129, 151)]
    for begin, end in itertools.pairwise(cuts):
        step = make_step([(1, tokens[begin:end], begin)])
        ring = np.full((1, 8), -1, np.int32)
        first = max(0, begin - 19) // 32
        ring[0, first : (end - 1) // 32 + 1] = np.arange(first, (end - 1) // 32 + 1) % 5 + 17
        [row] = runner.run(replace(step, window_pages=ring))
        if end > 128:
            assert np.array_equal(row.logits, wanted[end - 1 - 128]), end


@pytest.mark.parametrize(
    ("max_batch", "max_step_tokens", "n_pages"), [(16, 112, N_PAGES), (7, 30, 9), (3, 90, 6)]
)
def test_nothing_else_changes_an_answer(
    runner: RanksRunner, alone: dict[str, list[int]], max_batch: int, max_step_tokens: int,
    n_pages: int,
) -> None:  # fmt: skip
    """Cached and shifted, in batches, chunks and pools of several sizes."""
    runner.n_pages = n_pages
    try:
        told = answers(runner, asks(), max_batch=max_batch, max_step_tokens=max_step_tokens)
    finally:
        runner.n_pages = N_PAGES
    assert told == alone


def test_three_ranks_answer_as_one(toy: Path, alone: dict[str, list[int]]) -> None:
    ranks = RanksRunner(toy, 3, n_pages=N_PAGES)
    assert answers(ranks, asks(), max_batch=7, max_step_tokens=50) == alone
    ranks.close()


def test_a_saved_session_goes_on_in_another_engine(tmp_path: Path, toy: Path) -> None:
    """With the pages of its last window alone, in a pool that has few."""
    first = Submit(
        "a", [(7 * k) % 350 for k in range(100)], GREEDY, max_tokens=10, session_id="chat"
    )
    runners = [
        LocalRunner.load(
            open_model(toy), n_pages=n_pages, max_step_tokens=64, n_threads=1, kv_dir=tmp_path
        )
        for n_pages in (20, 9)
    ]
    one, other = (Engine(each, max_step_tokens=48, session_dir=tmp_path) for each in runners)
    told, _ = ask(one, first)
    reply = one.session(SessionCall("1", SessionAction.SAVE, "chat", "file"))
    assert reply.error is None and reply.n_tokens == 109
    second = replace(first, id="b", tokens=[*first.tokens, *told, 5, 6])
    wanted, _ = ask(one, replace(second, cache_prompt=False))
    for engine in (other, one):
        reply = engine.session(SessionCall("2", SessionAction.RESTORE, "chat", "file"))
        assert reply.error is None and reply.n_tokens == 109
        engine.scheduler.check_integrity()
        assert ask(engine, second) == (wanted, 109)
    for each in runners:
        each.close()
