"""The sums of a row's slots, against whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.sums import add_slots
from kernels.matmul.sums import FixedSums
from tests.fixed_sums import fixed_sums, values_of

N_ROWS, N_SLOTS, WIDTH = 11, 40, 48


@pytest.fixture
def slots() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([rng.permutation(N_SLOTS)[:5] for _ in range(N_ROWS)], np.int32)


def random_sums(largest: float) -> FixedSums:
    rng = np.random.default_rng(2)
    return fixed_sums(rng.uniform(-largest, largest, (N_SLOTS, WIDTH)))


@pytest.mark.parametrize("largest", [1.0, 100.0, 1e5], ids=["narrow", "sums-are-wide", "wide"])
def test_slots_are_added_exactly(team: np.ndarray, slots: np.ndarray, largest: float) -> None:
    sums = random_sums(largest)
    wanted = values_of(sums)[slots].sum(axis=1)
    rounded = np.full((N_ROWS, WIDTH), np.nan, np.float32)
    add_slots(team, slots, N_ROWS, sums, rounded)
    assert np.array_equal(rounded, wanted.astype(np.float32))
    fixed = FixedSums.zeros(N_ROWS, WIDTH)
    fixed.wide[:] = 1  # of an earlier step
    add_slots(team, slots, N_ROWS, sums, fixed)
    assert np.array_equal(values_of(fixed), wanted)
    assert fixed.wide.any() == (largest > 1)


def test_what_is_no_number_is_none_in_the_sum(team: np.ndarray, slots: np.ndarray) -> None:
    values = np.random.default_rng(3).uniform(-1, 1, (N_SLOTS, WIDTH))
    values[slots[4, 2], 17] = np.inf
    sums = fixed_sums(values)
    rounded, fixed = np.zeros((N_ROWS, WIDTH), np.float32), FixedSums.zeros(N_ROWS, WIDTH)
    add_slots(team, slots, N_ROWS, sums, rounded)
    add_slots(team, slots, N_ROWS, sums, fixed)
    wanted = values_of(sums)[slots].sum(axis=1)
    assert np.isnan(wanted[4, 17]) and np.isnan(wanted).sum() < wanted.size
    np.testing.assert_array_equal(rounded, wanted.astype(np.float32))
    np.testing.assert_array_equal(values_of(fixed), wanted)


def test_only_the_rows_of_the_step_are_written(team: np.ndarray, slots: np.ndarray) -> None:
    out = np.full((N_ROWS, WIDTH), 7, np.float32)
    add_slots(team, slots, 3, random_sums(1.0), out)
    assert (out[3:] == 7).all() and (out[:3] != 7).all()
