"""Soft caps against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.soft_cap import soft_cap
from kernels.team import Team


@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_capped_in_place(threads: int) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 4096)) * 10.0 ** rng.integers(-4, 5, (3, 4096))).astype(np.float32)
    x[0, :4] = 0.0, -0.0, 3e38, -3e38
    want, rest = 30 * np.tanh(x.astype(np.float64) / 30), x[2].copy()
    with Team(threads) as team:
        soft_cap(team.state, x, 2, 30.0)
    np.testing.assert_allclose(x[:2], want[:2], rtol=2e-7, atol=5e-6)
    assert np.array_equal(x[2], rest)
