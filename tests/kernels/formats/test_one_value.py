"""Every weight of a block, one at a time: the product with an input that is zero elsewhere is the
weight itself."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.formats import QUANT_TYPES, format_of
from kernels.matmul.multiply import matmul
from kernels.prepare import activations, prepare
from kernels.weights.layout import Needs
from kernels.weights.packing import pack
from tests.kernels.weights.random_weights import weights

ROWS, COLS, ONE = 19, 512, 127  # ONE is what int8 holds exactly


@pytest.mark.parametrize("n_tokens", [4, 128])
@pytest.mark.parametrize("fmt", QUANT_TYPES)
def test_products_with_a_unit_vector_are_the_weights(
    team: np.ndarray, fmt: str, n_tokens: int
) -> None:
    raw, exact = weights(fmt, ROWS, COLS, seed=3)
    w, a = pack(team, fmt, [raw], COLS), activations(n_tokens, COLS)
    out, found = np.zeros((n_tokens, 32), np.float32), []
    for first in range(0, COLS, n_tokens):
        a.rows[:] = ONE * np.eye(n_tokens, COLS, first)
        prepare(team, a, n_tokens, Needs(quants=True))
        matmul(team, w, a, n_tokens, out)
        found.append(out[:, :ROWS].copy())
    expected = (ONE * exact.T).astype(np.float32)
    if format_of(fmt).layout.has_min:  # which takes one float step more
        bound = 3e-7 * np.abs(expected).max()
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=bound)
    else:
        assert np.array_equal(np.concatenate(found), expected)
