"""Random weights of any format, as a file holds them and as exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.layout import BLOCK_FORMATS

gguf = pytest.importorskip("gguf", reason="the oracle for block formats is the gguf package")


def weights(fmt: str, rows: int, cols: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(raw rows as in a file, their exact values in float64).

    Blocks are random bits, so that every scale and every minimum occurs, under sane float16s.
    """
    kind, rng = gguf.GGMLQuantizationType[fmt.upper()], np.random.default_rng(seed)
    if fmt not in BLOCK_FORMATS:
        raw = gguf.quantize(rng.standard_normal((rows, cols)).astype(np.float32), kind)
        return raw.view(np.uint8).reshape(rows, -1), gguf.dequantize(raw, kind).astype(np.float64)
    f = BLOCK_FORMATS[fmt]
    raw = rng.integers(0, 256, (rows, cols // f.values, f.raw_bytes), np.uint8)
    for offset, size in f.words:
        if size == 2 and not (fmt == "iq4_xs" and offset == 2):  # that one is no float
            halfs = rng.uniform(-0.02, 0.02, raw.shape[:2]).astype(np.float16)
            raw[:, :, offset : offset + 2] = halfs[..., None].view(np.uint8)
    raw = raw.reshape(rows, -1)
    return raw, gguf.dequantize(raw, kind).astype(np.float64)
