"""Perplexity against its definition: the reference's logits, one window after the other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dllama.formats import open_model
from dllama.perplexity import Perplexity, windows_of
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.local_runner import LocalRunner
from dllama.step import MAX_LOGIT_ROWS, LogitRow, Step
from tests.local_model import load_whole
from tests.references.forward import reference_logits
from tests.toy_models import write_toy

WIDTH, BOS = 150, 1
TEXT = [int(token) for token in np.random.default_rng(0).integers(2, 300, 2 * WIDTH + 30)]


class Watched(LocalRunner):
    """A runner that remembers its steps."""

    steps: list[Step]

    def run(self, step: Step) -> list[LogitRow]:
        self.steps.append(step)
        return super().run(step)


def expected_losses(path: Path, bos_id: int | None) -> list[float]:
    losses: list[float] = []
    for window in windows_of(TEXT, WIDTH):
        read = list(window) if bos_id is None else [bos_id, *window[1:]]
        logits = reference_logits(open_model(path), read)
        tops = logits.max(axis=1)
        log_sums = tops + np.log(np.exp(logits - tops[:, None]).sum(axis=1))
        at = np.arange(WIDTH // 2, WIDTH - 1)
        losses += (log_sums[at] - logits[at, np.array(window)[at + 1]]).tolist()
    return losses


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("perplexity") / "toy.gguf")


@pytest.mark.parametrize("bos_id", [None, BOS])
def test_perplexity_is_that_of_the_reference(toy: Path, bos_id: int | None) -> None:
    losses, found = expected_losses(toy, bos_id), []
    for step_tokens in (16, 100):
        source = open_model(toy)
        model = load_whole(source, n_pages=-(-WIDTH // 32))
        runner = Watched(model, EmbeddingTable(source))
        runner.steps = []
        score = Perplexity(runner, bos_id=bos_id, max_step_tokens=step_tokens)
        estimate = [score.add(window) for window in windows_of(TEXT, WIDTH)][-1]
        runner.close()
        assert all(step.n_tokens <= step_tokens for step in runner.steps)
        assert all(len(step.logits_at) <= MAX_LOGIT_ROWS for step in runner.steps)
        assert (estimate.n_windows, estimate.n_tokens) == (2, len(losses)) == (2, 148)
        assert estimate.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=0.01)
        error = estimate.perplexity * np.std(losses) / math.sqrt(len(losses) - 1)
        assert estimate.error == pytest.approx(error, rel=0.03)
        found.append(estimate.perplexity)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_the_token_that_begins_texts_is_read_and_changes_the_rest(toy: Path) -> None:
    with_it, without = (math.exp(np.mean(expected_losses(toy, bos))) for bos in (BOS, None))
    assert abs(with_it / without - 1) > 0.001


def test_windows_are_whole() -> None:
    assert windows_of(range(10), 4) == [range(4), range(4, 8)]
    assert windows_of(range(3), 4) == []
