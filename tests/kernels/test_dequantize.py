"""Raw rows to floats, bit for bit as gguf does it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.dequantize import dequantize
from kernels.layout import BLOCK_FORMATS
from tests.kernels.random_weights import weights

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("fmt", [*BLOCK_FORMATS, "f16", "bf16", "f32"])
def test_rows_equal_gguf(fmt: str) -> None:
    """Random bits; equal to the last place but for the order of two float operations."""
    raw, exact = weights(fmt, 5, 512)
    out = np.zeros((5, 512), np.float32)
    dequantize(fmt, raw, out)
    np.testing.assert_allclose(out, exact, rtol=3e-7, atol=1e-7)
