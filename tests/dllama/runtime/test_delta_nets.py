"""Models with gated delta nets: against the reference, and what no result may depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.formats import open_model
from dllama.qtypes import QType
from tests.dllama.runtime.same_logits import (
    batches_equal_singles,
    chunks_equal_the_whole,
    replays_change_nothing,
)
from tests.dllama.runtime.test_exact import bits
from tests.dllama.runtime.test_groups import logits as logits_in_groups
from tests.local_model import local_runner, make_step
from tests.references.forward import reference_logits
from tests.toy_models import write_toy

TOKENS = [int(t) for t in np.random.default_rng(0).integers(0, 352, 120)]
ARCHS = ("qwen3next", "qwen35", "qwen35moe")


@pytest.mark.parametrize("arch", ARCHS)
def test_logits_are_those_of_the_reference(tmp_path: Path, arch: str) -> None:
    path = write_toy(tmp_path / "toy.gguf", arch=arch, hidden_dim=96, seed=2)
    expected = reference_logits(open_model(path), TOKENS[:60])
    with local_runner(path, threads=2) as runner:
        rows = runner.run(make_step([(0, TOKENS[:60], 0)], every_row=True))
    got = np.array([row.logits for row in rows])
    np.testing.assert_allclose(got, expected, atol=2e-3 * np.abs(expected).max())


@pytest.fixture(params=ARCHS)
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    qtype = QType.F32 if request.param == "qwen35moe" else QType.Q8_0
    return write_toy(tmp_path / "toy.gguf", arch=request.param, qtype=qtype, hidden_dim=96, seed=2)


def test_chunks_and_tokens_equal_the_whole(model: Path) -> None:
    chunks_equal_the_whole(model, TOKENS, ([0, 1, 9, 60, 120], range(121)))


def test_a_batch_equals_singles(model: Path) -> None:
    batches_equal_singles(model, TOKENS)


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 5.0, 2.0]], ids=str)
def test_many_nodes_equal_one(model: Path, shares: list[float]) -> None:
    assert bits(model, shares) == bits(model, [1.0])


@pytest.mark.parametrize("shares", [[1.0], [1.0, 9.0]], ids=str)
def test_replays_change_nothing(model: Path, shares: list[float]) -> None:
    """Steps that are replayed have other sequences in other slots than the captured one."""
    replays_change_nothing(model, shares)


def test_states_are_kept_and_gone_on_from(model: Path) -> None:
    """Of a row in the middle of a prompt; by two sequences at once."""
    with local_runner(model) as runner:
        [whole] = runner.run(make_step([(0, TOKENS[:70], 0)]))
        whole_logits = whole.logits.copy()
        step = make_step([(1, TOKENS[:100], 0)])
        runner.run(replace(step, kept=np.array([[63, 9]], np.int32)))
        both = make_step([(1, TOKENS[64:70], 64), (1, TOKENS[64:71], 64)])
        both = replace(both, pages=np.array([[8, 9, 20, 21], [8, 9, 22, 23]], np.int32))
        slots = np.array([[9, 2], [9, 3]], np.int32)
        first, _ = runner.run(replace(both, slots=slots))
        assert np.array_equal(first.logits, whole_logits)


@pytest.mark.parametrize("n_groups", [1, 3, 7])
def test_groups_of_rows_change_nothing(tmp_path: Path, n_groups: int) -> None:
    """A group goes on from the states that the one before has left, layer by layer."""
    path = write_toy(tmp_path / "toy.gguf", arch="qwen35moe", hidden_dim=96)
    whole = logits_in_groups(path, 0, 1)
    found = logits_in_groups(path, n_groups, 2)
    assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
