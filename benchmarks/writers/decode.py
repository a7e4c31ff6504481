"""Decodes the blocks that files store to float32. The plain meaning of each type, for writers,
inspection and tests; kernels have their own ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dllama.qtypes import BLOCK, QType


def decode(raw: np.ndarray, qtype: QType) -> np.ndarray:
    """Blocks `raw` (rows, bytes of a row) uint8 as float32 (rows, cols).

    Raises ValueError where there is no decoder for the type.
    """
    if qtype not in DECODERS:
        known = ", ".join(q.name for q in DECODERS)
        raise ValueError(f"there is no decoder for {qtype.name}, only for {known}")
    block = BLOCK[qtype]
    rows, n_bytes = raw.shape
    blocks = np.ascontiguousarray(raw).reshape(-1, block.bytes)
    return DECODERS[qtype](blocks).reshape(rows, n_bytes // block.bytes * block.values)


def _f32(blocks: np.ndarray) -> np.ndarray:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: np.ndarray) -> np.ndarray:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: np.ndarray) -> np.ndarray:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    product: np.ndarray = _f16(blocks[:, :2].copy()) * blocks[:, 2:].view(np.int8)
    return product


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    product: np.ndarray = _f16(blocks[:, :2].copy()) * (nibbles.astype(np.float32) - 8)
    return product


DECODERS: dict[QType, Callable[[np.ndarray], np.ndarray]] = {
    QType.F32: _f32,
    QType.F16: _f16,
    QType.BF16: _bf16,
    QType.Q8_0: _q8_0,
    QType.Q4_0: _q4_0,
}
"""Blocks (n, bytes of a block) to values (n, values of a block)."""
