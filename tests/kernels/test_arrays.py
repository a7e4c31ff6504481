"""Where arrays begin, and what they hold at first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.arrays import CACHE_LINE, HUGE_PAGE, aligned, huge


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (7, 300_001), (2, HUGE_PAGE)])
def test_huge_arrays_are_zero_writable_and_aligned(shape: tuple[int, int]) -> None:
    found = huge(shape)
    assert found.shape == shape and found.dtype == np.uint8 and not found.any()
    assert found.ctypes.data % (HUGE_PAGE if found.size >= HUGE_PAGE else CACHE_LINE) == 0
    found[-1, -1] = 7
    assert found.flags.c_contiguous and found.sum() == 7


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_the_end_of_an_array_takes_no_huge_page() -> None:
    """A model has many matrices of few MB: half a huge page of each would be a tenth of it."""
    n_bytes, n = HUGE_PAGE + (128 << 10), 24
    before = resident_bytes()
    arrays = [huge((1, n_bytes)) for _ in range(n)]
    for array in arrays:
        array[:] = 1
    assert resident_bytes() - before < n * n_bytes + HUGE_PAGE


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def test_arrays_of_nothing() -> None:
    assert huge((0, 128)).shape == (0, 128) and aligned((4, 0), np.float32).shape == (4, 0)
