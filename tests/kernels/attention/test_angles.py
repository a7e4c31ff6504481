"""Rotary positions are the cosines and sines of their angles, as float32 holds them."""

from __future__ import annotations

import numpy as np

from kernels.attention.rope import rope_table

POSITIONS = np.array([*range(70), *range(131_000, 131_072), 999_999], np.int32)


def test_cosines_and_sines_of_all_angles_are_the_nearest_float32() -> None:
    frequencies = np.array([1.0, 0.7316, 0.1, 3.1e-3, 1.0e-6])
    cosines, sines = np.empty((2, len(POSITIONS), len(frequencies)), np.float32)
    rope_table(POSITIONS, frequencies, 1.0, cosines, sines)
    angles = POSITIONS[:, None] * frequencies
    for found, exact in ((cosines, np.cos(angles)), (sines, np.sin(angles))):
        # Half a unit in the last place, and what a float64 of half a unit may add.
        unit = np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)
        assert (np.abs(found - exact) <= 0.5001 * unit).all()


def test_a_magnitude_multiplies_them() -> None:
    cosines, sines = np.empty((2, 1, 1), np.float32)
    rope_table(np.array([2], np.int32), np.array([0.25]), 1.5, cosines, sines)
    assert cosines[0, 0] == np.float32(1.5 * np.cos(0.5))
    assert sines[0, 0] == np.float32(1.5 * np.sin(0.5))
