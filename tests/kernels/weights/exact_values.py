"""The values of raw blocks: gguf's dequantization, and the definitions of types that it only names
or does not know yet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="the oracle for block formats is the gguf package")


def exact_values(fmt: str, raw: np.ndarray) -> np.ndarray:
    """Raw rows, uint8 (rows, bytes of a row), as float32 (rows, cols)."""
    if fmt in NOT_IN_GGUF:
        values: np.ndarray = NOT_IN_GGUF[fmt](raw.reshape(-1, 18))
        return values.reshape(len(raw), -1)
    found: np.ndarray = gguf.dequantize(raw, gguf.GGMLQuantizationType[fmt.upper()])
    return found


def _q1_0(blocks: np.ndarray) -> np.ndarray:
    """ggml's dequantize_row_q1_0: bit i of 128 says whether value i is d or -d."""
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
    values: np.ndarray = _scales(blocks) * (2.0 * bits - 1.0).astype(np.float32)
    return values


def _q2_0(blocks: np.ndarray) -> np.ndarray:
    """ggml's dequantize_row_q2_0: two bits for each of 64 values, 1 too large."""
    pairs = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    values: np.ndarray = _scales(blocks) * (pairs.reshape(len(blocks), -1) - np.float32(1))
    return values


def _scales(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, :2].copy().view("<f2").astype(np.float32)


NOT_IN_GGUF: dict[str, Callable[[np.ndarray], np.ndarray]] = {"q1_0": _q1_0, "q2_0": _q2_0}
"""By the type: a function of blocks (n, 18) uint8."""
