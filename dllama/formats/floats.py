"""Plain numbers as files store them, to float32, and to BF16. NumPy only."""

from __future__ import annotations

import numpy as np

from dllama.qtypes import QType

FLOAT_TYPES = (QType.F32, QType.F16, QType.BF16)


def floats_of(raw: np.ndarray, qtype: QType) -> np.ndarray:
    """Returns rows of raw numbers, uint8 (rows, bytes of a row), as float32 (rows, cols)."""
    rows = np.ascontiguousarray(raw)
    if qtype is QType.F32:
        return rows.view("<f4").astype(np.float32, copy=False)
    if qtype is QType.F16:
        return rows.view("<f2").astype(np.float32)
    assert qtype is QType.BF16, f"{qtype.name} is no type of plain numbers"
    return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)


def bf16_bytes(x: np.ndarray) -> np.ndarray:
    """Returns float32 values as BF16, rounded to nearest, ties to even, in uint8 with twice as many
    columns; a NaN stays a (quiet) NaN."""
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # what overflows was no number
    quiet = (bits >> 16) | 64
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet, rounded).astype("<u2").view(np.uint8)
