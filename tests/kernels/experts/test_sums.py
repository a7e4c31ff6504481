"""The sums of a row's slots, against whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.routing import Routes, routes
from kernels.experts.sums import add_slots
from kernels.matmul.sums import QUANTUM, FixedSums
from tests.fixed_sums import fixed_sums, values_of

N_ROWS, N_SLOTS, WIDTH = 11, 40, 48


@pytest.fixture
def slots() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([rng.permutation(N_SLOTS)[:5] for _ in range(N_ROWS)], np.int32)


def taking(slots: np.ndarray) -> Routes:
    """Rows with these slots, which take two of three experts each."""
    rng = np.random.default_rng(4)
    found = routes(len(slots), 3, 2, has_shared=False)
    found.chosen[:] = rng.integers(0, 3, found.chosen.shape)
    found.chances[:] = rng.uniform(0, 1, found.chances.shape)
    return found._replace(slots=slots)


def random_sums(largest: float) -> FixedSums:
    rng = np.random.default_rng(2)
    return fixed_sums(rng.uniform(-largest, largest, (N_SLOTS, WIDTH)))


@pytest.mark.parametrize("largest", [1.0, 100.0, 1e5], ids=["narrow", "sums-are-wide", "wide"])
def test_slots_are_added_exactly(team: np.ndarray, slots: np.ndarray, largest: float) -> None:
    sums = random_sums(largest)
    wanted = values_of(sums)[slots].sum(axis=1)
    rounded = np.full((N_ROWS, WIDTH), np.nan, np.float32)
    add_slots(team, taking(slots), N_ROWS, sums, rounded)
    assert np.array_equal(rounded, wanted.astype(np.float32))
    fixed = FixedSums.zeros(N_ROWS, WIDTH)
    fixed.wide[:] = 1  # of an earlier step
    add_slots(team, taking(slots), N_ROWS, sums, fixed)
    assert np.array_equal(values_of(fixed), wanted)
    assert fixed.wide.any() == (largest > 1)


@pytest.mark.parametrize("largest", [1.0, 1e5], ids=["narrow", "wide"])
def test_weighted_biases_are_added_exactly(
    team: np.ndarray, slots: np.ndarray, largest: float
) -> None:
    found, sums = taking(slots), random_sums(largest)
    biases = np.random.default_rng(5).uniform(-2, 2, (3, WIDTH)).astype(np.float32)
    weighted = found.chances[..., None] * biases[found.chosen]
    wanted = values_of(sums)[slots].sum(axis=1)
    wanted += (np.rint(weighted.astype(np.float64) / QUANTUM) * QUANTUM).sum(axis=1)
    rounded, fixed = np.zeros((N_ROWS, WIDTH), np.float32), FixedSums.zeros(N_ROWS, WIDTH)
    add_slots(team, found, N_ROWS, sums, rounded, biases)
    add_slots(team, found, N_ROWS, sums, fixed, biases)
    assert np.array_equal(rounded, wanted.astype(np.float32))
    assert np.array_equal(values_of(fixed), wanted)


def test_a_bias_that_is_no_number_is_none_in_the_sum(team: np.ndarray, slots: np.ndarray) -> None:
    found, biases = taking(slots), np.zeros((3, WIDTH), np.float32)
    biases[1, 5], biases[2, 7] = np.nan, -np.inf
    fixed = FixedSums.zeros(N_ROWS, WIDTH)
    add_slots(team, found, N_ROWS, random_sums(1.0), fixed, biases)
    is_none = np.isnan(values_of(fixed))
    assert np.array_equal(is_none[:, 5], (found.chosen == 1).any(axis=1))
    assert np.array_equal(is_none[:, 7], (found.chosen == 2).any(axis=1))
    assert is_none.sum() == is_none[:, [5, 7]].sum()


def test_what_is_no_number_is_none_in_the_sum(team: np.ndarray, slots: np.ndarray) -> None:
    values = np.random.default_rng(3).uniform(-1, 1, (N_SLOTS, WIDTH))
    values[slots[4, 2], 17] = np.inf
    sums = fixed_sums(values)
    rounded, fixed = np.zeros((N_ROWS, WIDTH), np.float32), FixedSums.zeros(N_ROWS, WIDTH)
    add_slots(team, taking(slots), N_ROWS, sums, rounded)
    add_slots(team, taking(slots), N_ROWS, sums, fixed)
    wanted = values_of(sums)[slots].sum(axis=1)
    assert np.isnan(wanted[4, 17]) and np.isnan(wanted).sum() < wanted.size
    np.testing.assert_array_equal(rounded, wanted.astype(np.float32))
    np.testing.assert_array_equal(values_of(fixed), wanted)


def test_only_the_rows_of_the_step_are_written(team: np.ndarray, slots: np.ndarray) -> None:
    out = np.full((N_ROWS, WIDTH), 7, np.float32)
    add_slots(team, taking(slots), 3, random_sums(1.0), out)
    assert (out[3:] == 7).all() and (out[:3] != 7).all()
