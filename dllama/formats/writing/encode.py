"""Encodes float32 rows as the blocks that files store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dllama.formats.floats import bf16_bytes
from dllama.qtypes import QType, row_bytes
from kernels.encoding import MODULES
from kernels.encoding.encode import encode_rows


def encode(values: np.ndarray, qtype: QType) -> np.ndarray:
    """Rows of `values` (rows, cols) float32 as blocks: uint8 (rows, bytes of a row).

    Raises ValueError where there is no encoder, or a row would end inside a block.
    """
    if qtype not in ENCODABLE:
        known = ", ".join(q.name for q in ENCODABLE)
        raise ValueError(f"there is no encoder for {qtype.name}, only for {known}")
    rows, cols = values.shape
    n_bytes = row_bytes(qtype, cols)
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    if qtype in _NUMBERS:
        return _NUMBERS[qtype](flat).reshape(rows, n_bytes)
    out = np.empty((rows, n_bytes), np.uint8)
    encode_rows(qtype.name.lower(), flat, out.reshape(-1))
    return out


def _f32(x: np.ndarray) -> np.ndarray:
    return x.astype("<f4").view(np.uint8)


def _f16(x: np.ndarray) -> np.ndarray:
    return x.astype("<f2").view(np.uint8)


_NUMBERS: dict[QType, Callable[[np.ndarray], np.ndarray]] = {
    QType.F32: _f32,
    QType.F16: _f16,
    QType.BF16: bf16_bytes,
}
"""Flat float32 values to bytes."""

ENCODABLE = (*_NUMBERS, *(QType[name.upper()] for name in MODULES))
"""The types that values can be encoded in."""
