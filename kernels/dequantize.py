"""Rows of raw blocks to float32: embeddings, norms and biases, which no matmul reads."""

from __future__ import annotations

import numpy as np

from kernels.intrinsics import f16_to_f32, f32_from_bits
from kernels.jit import jitted, kernel


@jitted
def _half(row, at):
    return f16_to_f32(np.uint16(row[at] | (np.uint16(row[at + 1]) << 8)))


@kernel
def _from_q4_0(raw, out):
    for t in range(raw.shape[0]):
        for block in range(raw.shape[1] // 18):
            scale = _half(raw[t], block * 18)
            for i in range(16):
                byte = raw[t, block * 18 + 2 + i]
                out[t, block * 32 + i] = np.float32(np.int32(byte & 15) - 8) * scale
                out[t, block * 32 + 16 + i] = np.float32(np.int32(byte >> 4) - 8) * scale


@kernel
def _from_q8_0(raw, out):
    for t in range(raw.shape[0]):
        for block in range(raw.shape[1] // 34):
            scale = _half(raw[t], block * 34)
            for i in range(32):
                out[t, block * 32 + i] = np.float32(np.int8(raw[t, block * 34 + 2 + i])) * scale


@kernel
def _from_f16(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 2):
            out[t, i] = _half(raw[t], 2 * i)


@kernel
def _from_bf16(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 2):
            bits = np.uint32(raw[t, 2 * i]) | (np.uint32(raw[t, 2 * i + 1]) << 8)
            out[t, i] = f32_from_bits(np.int32(bits << 16))


@kernel
def _from_f32(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 4):
            bits = np.uint32(0)
            for byte in range(4):
                bits |= np.uint32(raw[t, 4 * i + byte]) << (8 * byte)
            out[t, i] = f32_from_bits(np.int32(bits))


_KERNELS = {
    "q4_0": _from_q4_0,
    "q8_0": _from_q8_0,
    "f16": _from_f16,
    "bf16": _from_bf16,
    "f32": _from_f32,
}


def dequantize(fmt: str, raw: np.ndarray, out: np.ndarray) -> None:
    """Writes rows of raw blocks, uint8 (T, bytes of a row), to out (T, cols) float32."""
    _KERNELS[fmt](raw, out)
