"""The inputs of experts are those of products of their own, batch by batch."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.slots import activate, gather
from kernels.gates import Gate
from kernels.prepare import activations, prepare
from kernels.weights.layout import Activations, Needs

COLS = 96
BATCHES = [(3, 0, 1), (0, 1, 9), (2, 10, 97), (5, 107, 3)]  # expert, first slot, slots
N_SLOTS = 110
FORMS = [Needs(quants=True), Needs(tiles=True), Needs(True, True, True)]


def table_of(batches: list[tuple[int, int, int]]) -> np.ndarray:
    most = max(count for _, _, count in batches)
    return np.array([(len(batches), most, 0), *batches], np.int32)


def assert_laid_out(team: np.ndarray, a: Activations, rows: np.ndarray, needs: Needs) -> None:
    """Compares each batch of an input with what `prepare` makes of the same rows alone."""
    for _, first, count in BATCHES:
        alone = activations(count, COLS)
        alone.rows[:] = rows[first : first + count]
        prepare(team, alone, count, needs)
        for name in ("tiles", "quants", "scales", "sums", "weighted", "bf16"):
            wanted, found = getattr(alone, name), getattr(a, name)
            each = wanted.size // count
            part = found[first * each : (first + count) * each]
            assert np.array_equal(part, wanted), name


@pytest.mark.parametrize("needs", FORMS, ids=["quants", "tiles", "all"])
def test_rows_are_gathered(team: np.ndarray, needs: Needs) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, COLS)).astype(np.float32)
    rows = rng.integers(0, 40, N_SLOTS).astype(np.int32)
    a = activations(N_SLOTS + 4, COLS)
    gather(team, x, rows, table_of(BATCHES), a, needs)
    assert_laid_out(team, a, x[rows], needs)
    weights = rng.uniform(0, 1, N_SLOTS).astype(np.float32)
    gather(team, x, rows, table_of(BATCHES), a, needs, weights)
    assert_laid_out(team, a, x[rows] * weights[:, None], needs)


@pytest.mark.parametrize("needs", FORMS, ids=["quants", "tiles", "all"])
def test_activations_are_weighted(team: np.ndarray, needs: Needs) -> None:
    """`gate_up` may be wider than both halves."""
    rng = np.random.default_rng(1)
    gate_up = rng.standard_normal((N_SLOTS, 2 * COLS + 16)).astype(np.float32)
    weights = rng.uniform(0, 1, N_SLOTS).astype(np.float32)
    a = activations(N_SLOTS, COLS)
    activate(team, gate_up, weights, table_of(BATCHES), a, needs)
    gate, up = gate_up[:, :COLS].astype(np.float64), gate_up[:, COLS : 2 * COLS]
    wanted = weights[:, None] * gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(a.rows, wanted, rtol=1e-5, atol=1e-6)
    assert_laid_out(team, a, a.rows, needs)


def test_biases_are_added_and_gates_cut_off(team: np.ndarray) -> None:
    """gpt-oss: each slot has the biases of its expert."""
    rng = np.random.default_rng(2)
    gate_up = 5 * rng.standard_normal((N_SLOTS, 2 * COLS)).astype(np.float32)
    biases = rng.standard_normal((6, 2 * COLS)).astype(np.float32)
    weights = rng.uniform(0, 1, N_SLOTS).astype(np.float32)
    experts = np.concatenate([[expert] * count for expert, _, count in BATCHES])
    both = (gate_up + biases[experts]).astype(np.float64)
    gate, up = np.minimum(both[:, :COLS], 7), np.clip(both[:, COLS:], -7, 7)
    assert (gate == 7).any() and (up == 7).any() and (up == -7).any()
    a = activations(N_SLOTS, COLS)
    needs = Needs(True, True, True)
    activate(team, gate_up, weights, table_of(BATCHES), a, needs, Gate.CLAMPED, biases)
    wanted = weights[:, None] * gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    np.testing.assert_allclose(a.rows, wanted, rtol=1e-5, atol=1e-6)
    assert_laid_out(team, a, a.rows, needs)
