"""Raw rows to floats, bit for bit as gguf does it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.formats import ALL_TYPES
from kernels.weights.dequantize import dequantize
from tests.kernels.weights.random_weights import weights

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_rows_equal_gguf(fmt: str) -> None:
    """Random bits; equal to the last place but for the order of two float operations."""
    raw, exact = weights(fmt, 5, 512)
    out = np.zeros((5, 512), np.float32)
    dequantize(fmt, raw, out)
    np.testing.assert_allclose(out, exact, rtol=3e-7, atol=1e-7)
