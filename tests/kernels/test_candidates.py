"""The scan for the largest logits against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.candidates import scan_logits
from kernels.team import Team


def _scan(
    logits: np.ndarray, n_vocab: int, counts: list[int], first_id: int = 0, unit: int = 1 << 20
):
    k = max(1, *counts)
    n = len(counts)
    ids, values = np.full((n, k), -1, np.int32), np.zeros((n, k), np.float32)
    tops, sums = np.zeros((2, n, -(-n_vocab // unit)), np.float32)
    with Team(1) as team:
        scan_logits(team.state, logits, n_vocab, first_id, unit, np.array(counts, np.int32), ids,
                    values, tops, sums)  # fmt: skip
    return ids, values, tops, sums


@settings(max_examples=60)
@given(st.integers(1, 700), st.integers(1, 64), st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_largest_come_first_and_ties_go_to_the_lower_id(
    n_vocab: int, k: int, seed: int, n_values: int
) -> None:
    """Few distinct values make many ties."""
    rng = np.random.default_rng(seed)
    row = rng.integers(-n_values, n_values, (1, n_vocab + 5)).astype(np.float32)
    ids, values, _, _ = _scan(row, n_vocab, [k], first_id=100)
    k = min(k, n_vocab)
    order = np.lexsort((np.arange(n_vocab), -row[0, :n_vocab]))[:k]
    assert np.array_equal(ids[0, :k], order + 100)
    assert np.array_equal(values[0, :k], row[0, order])


def test_denominator_and_rows_of_their_own_count() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32) * 5
    ids, _, tops, sums = _scan(logits, 5000, [1, 0, 256])
    exact = np.log(np.exp(logits.astype(np.float64)).sum(1))
    np.testing.assert_allclose(tops[:, 0] + np.log(sums[:, 0]), exact, rtol=1e-5)
    assert ids[0, 0] == logits[0].argmax() and ids[0, 1] == -1
    assert (ids[1] == -1).all()
    assert np.array_equal(ids[2], np.argsort(-logits[2], kind="stable")[:256])


@pytest.mark.parametrize("n_vocab", [1, 15, 16, 17, 31, 48])
def test_every_logit_is_in_the_denominator(n_vocab: int) -> None:
    _, _, tops, sums = _scan(np.full((1, n_vocab + 3), 2.0, np.float32), n_vocab, [1])
    assert tops[0, 0] == 2.0 and sums[0, 0] == pytest.approx(n_vocab, rel=1e-6)


@pytest.mark.parametrize("n_vocab", [16, 100, 512, 700])
def test_units_of_a_slice_are_those_of_the_whole(n_vocab: int) -> None:
    logits = np.random.default_rng(n_vocab).standard_normal((2, n_vocab)).astype(np.float32)
    _, _, tops, sums = _scan(logits, n_vocab, [0, 3], unit=48)
    for first in range(0, n_vocab, 96):
        part = np.ascontiguousarray(logits[:, first : first + 96])
        _, _, its_tops, its_sums = _scan(part, part.shape[1], [0, 3], unit=48)
        here = slice(first // 48, first // 48 + its_tops.shape[1])
        assert np.array_equal(its_tops, tops[:, here])
        assert np.array_equal(its_sums, sums[:, here])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_strange_logits_do_not_hang_or_escape(bad: float) -> None:
    logits = np.zeros((1, 300), np.float32)
    logits[0, ::3] = bad
    ids, _, _, _ = _scan(logits, 300, [40])
    assert ((ids >= 0) & (ids < 300)).all()
