"""Raw rows to floats, bit for bit as gguf does it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.dequantize import dequantize

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("fmt", ["q4_0", "q8_0", "f16", "bf16", "f32"])
def test_rows_equal_gguf(fmt: str) -> None:
    kind = gguf.GGMLQuantizationType[fmt.upper()]
    values = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    raw = gguf.quantize(values, kind)
    out = np.zeros((5, 96), np.float32)
    dequantize(fmt, raw.view(np.uint8).reshape(5, -1), out)
    assert np.array_equal(out, gguf.dequantize(raw, kind))
