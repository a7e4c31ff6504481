"""Encodes float32 rows as the blocks that files store, bit for bit as the reference quantizers of
ggml do (ggml-quants.c). NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dllama.qtypes import QType, row_bytes


def encode(values: np.ndarray, qtype: QType) -> np.ndarray:
    """Rows of `values` (rows, cols) float32 as blocks: uint8 (rows, bytes of a row).

    Raises ValueError where there is no encoder, or a row would end inside a block.
    """
    if qtype not in ENCODERS:
        known = ", ".join(q.name for q in ENCODERS)
        raise ValueError(f"there is no encoder for {qtype.name}, only for {known}")
    rows, cols = values.shape
    n_bytes = row_bytes(qtype, cols)
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return ENCODERS[qtype](flat).reshape(rows, n_bytes)


def _f32(x: np.ndarray) -> np.ndarray:
    return x.astype("<f4").view(np.uint8)


def _f16(x: np.ndarray) -> np.ndarray:
    return x.astype("<f2").view(np.uint8)


def _bf16(x: np.ndarray) -> np.ndarray:
    """Rounds to nearest, ties to even; a NaN stays a (quiet) NaN."""
    bits = x.view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 64
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet, rounded).astype("<u2").view(np.uint8)


def _q8_0(x: np.ndarray) -> np.ndarray:
    """32 values: an f16 scale d = max|x| / 127, then int8 x / d, halves rounded away from 0."""
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    whole = np.floor(np.abs(scaled))
    rounded = whole + np.floor(2 * (np.abs(scaled) - whole))
    codes = (np.sign(scaled) * rounded).astype(np.int8)
    return np.concatenate([_f16(scale), codes.view(np.uint8)], axis=1)


def _q4_0(x: np.ndarray) -> np.ndarray:
    """32 values: an f16 scale d = (the value furthest from 0) / -8, then 16 bytes with value j
    in the low and value j + 16 in the high nibble, each x / d + 8."""
    blocks = x.reshape(-1, 32)
    furthest = np.abs(blocks).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(blocks, furthest, axis=1) / np.float32(-8)
    shifted = np.trunc(blocks * _inverse(scale) + np.float32(8.5))
    codes = np.clip(shifted, 0, 15).astype(np.uint8)
    return np.concatenate([_f16(scale), codes[:, :16] | codes[:, 16:] << 4], axis=1)


def _q4_1(x: np.ndarray) -> np.ndarray:
    """32 values: an f16 scale d and an f16 minimum m, then nibbles as Q4_0 has them, each
    (x - m) / d."""
    blocks = x.reshape(-1, 32)
    scale, low, codes = _between_ends(blocks, 15)
    return np.concatenate([_f16(scale), _f16(low), codes[:, :16] | codes[:, 16:] << 4], axis=1)


def _q5_0(x: np.ndarray) -> np.ndarray:
    """32 values: an f16 scale d = (the value furthest from 0) / -16, 4 bytes with the fifth bits,
    value j in bit j, then nibbles as Q4_0 has them, each x / d + 16."""
    blocks = x.reshape(-1, 32)
    furthest = np.abs(blocks).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(blocks, furthest, axis=1) / np.float32(-16)
    shifted = np.trunc(blocks * _inverse(scale) + np.float32(16.5))
    codes = np.clip(shifted, 0, 31).astype(np.uint8)
    return np.concatenate([_f16(scale), *_five_bits(codes)], axis=1)


def _q5_1(x: np.ndarray) -> np.ndarray:
    """32 values: scale and minimum as Q4_1 has them, then five bits as Q5_0."""
    scale, low, codes = _between_ends(x.reshape(-1, 32), 31)
    return np.concatenate([_f16(scale), _f16(low), *_five_bits(codes)], axis=1)


def _between_ends(blocks: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the step, (n, 1), and the lowest value, (n, 1), of each block, and its values in
    steps from there, uint8 (n, 32) up to `most`."""
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / np.float32(most)
    steps = np.trunc((blocks - low) * _inverse(scale) + np.float32(0.5))
    return scale, low, np.clip(steps, 0, most).astype(np.uint8)


def _five_bits(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fifth bits of codes (n, 32), (n, 4), and their nibbles, (n, 16)."""
    high = np.packbits(codes >> 4, axis=1, bitorder="little")
    low = codes & 15
    return high, low[:, :16] | low[:, 16:] << 4


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where the scale is 0 (a block of zeros)."""
    out = np.zeros_like(scale)
    np.divide(np.float32(1), scale, out=out, where=scale != 0)
    return out


ENCODERS: dict[QType, Callable[[np.ndarray], np.ndarray]] = {
    QType.F32: _f32,
    QType.F16: _f16,
    QType.BF16: _bf16,
    QType.Q8_0: _q8_0,
    QType.Q4_0: _q4_0,
    QType.Q4_1: _q4_1,
    QType.Q5_0: _q5_0,
    QType.Q5_1: _q5_1,
}
"""Flat float32 values (n,) to bytes; n is a multiple of the type's block."""
