"""Random weights of any type, as a file holds them and as exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.formats import format_of
from kernels.weights.layout import BlockType

gguf = pytest.importorskip("gguf", reason="the oracle for block formats is the gguf package")


def weights(fmt: str, rows: int, cols: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(raw rows as in a file, their exact values in float64).

    Blocks are random bits, so that every scale and every minimum occurs, under sane factors.
    """
    kind, rng = gguf.GGMLQuantizationType[fmt.upper()], np.random.default_rng(seed)
    f = format_of(fmt).layout
    if not isinstance(f, BlockType):
        raw = gguf.quantize(rng.standard_normal((rows, cols)).astype(np.float32), kind)
        return raw.view(np.uint8).reshape(rows, -1), gguf.dequantize(raw, kind).astype(np.float64)
    raw = rng.integers(0, 256, (rows, cols // f.values, f.raw_bytes), np.uint8)
    for offset, word in f.words:
        if word == "f16":
            halfs = rng.uniform(-0.02, 0.02, raw.shape[:2]).astype(np.float16)
            raw[:, :, offset : offset + 2] = halfs[..., None].view(np.uint8)
        elif word == "e8m0":
            raw[:, :, offset] = rng.integers(117, 124, raw.shape[:2])
    raw = raw.reshape(rows, -1)
    return raw, gguf.dequantize(raw, kind).astype(np.float64)
