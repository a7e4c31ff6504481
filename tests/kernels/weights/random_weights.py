"""Random weights of any type, as a file holds them and as exact numbers."""

from __future__ import annotations

import numpy as np

from kernels.formats import format_of
from kernels.weights.layout import BlockType
from tests.kernels.weights.exact_values import exact_values, gguf


def weights(fmt: str, rows: int, cols: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(raw rows as in a file, their exact values in float64).

    Blocks are random bits, so that every scale and every minimum occurs, under sane factors.
    """
    rng, f = np.random.default_rng(seed), format_of(fmt).layout
    if not isinstance(f, BlockType):
        kind = gguf.GGMLQuantizationType[fmt.upper()]
        raw = gguf.quantize(rng.standard_normal((rows, cols)).astype(np.float32), kind)
        return raw.view(np.uint8).reshape(rows, -1), gguf.dequantize(raw, kind).astype(np.float64)
    raw = rng.integers(0, 256, (rows, cols // f.values, f.raw_bytes), np.uint8)
    for offset, word in f.words:
        if word == "f16":
            halfs = rng.uniform(-0.02, 0.02, raw.shape[:2]).astype(np.float16)
            raw[:, :, offset : offset + 2] = halfs[..., None].view(np.uint8)
        elif word == "e8m0":
            raw[:, :, offset] = rng.integers(117, 124, raw.shape[:2])
    if fmt == "nvfp4":
        raw[:, :, :4] = rng.integers(0, 24, (*raw.shape[:2], 4))  # fp8 up to 0.06
    if fmt == "iq1_m":
        put_scattered(raw, rng.uniform(-0.02, 0.02, raw.shape[:2]))
    raw = raw.reshape(rows, -1)
    return raw, exact_values(fmt, raw).astype(np.float64)


def put_scattered(raw: np.ndarray, scales: np.ndarray) -> None:
    """Writes IQ1_M's float16 of each block (rows, blocks): a nibble on top of each of four halves,
    the lowest first."""
    bits = scales.astype(np.float16).view(np.uint16)
    for i in range(4):
        top = raw[:, :, 49 + 2 * i]
        top[...] = (top & 15) | ((bits >> (4 * i)) & 15) << 4
