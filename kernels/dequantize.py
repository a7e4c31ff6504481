"""Rows of raw blocks to float32: embeddings, norms and biases, which no matmul reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.intrinsics import f32_from_bits
from kernels.jit import jitted, kernel, named
from kernels.layout import BLOCK_FORMATS, BlockFormat
from kernels.raw_blocks import READERS, half


def _dequantizer(fmt: BlockFormat) -> Any:
    """A function f(raw, out) for one block format."""
    reader, n_values, raw_bytes, offset = READERS[fmt.name], fmt.values, fmt.raw_bytes, fmt.offset
    read_quants, read_scales, value = reader

    @jitted
    @named(f"dequantize_rows_{fmt.name}")
    def dequantize_rows(raw, out):
        q = np.empty(n_values, np.uint8)
        scale, minimum = np.empty((2, n_values // 16), np.float32)
        for t in range(raw.shape[0]):
            for unit in range(raw.shape[1] // raw_bytes):
                read_quants(raw[t], unit * raw_bytes, q)
                read_scales(raw[t], unit * raw_bytes, scale, minimum)
                for i in range(n_values):
                    weight = scale[i // 16] * value(q[i], offset)
                    out[t, unit * n_values + i] = weight + minimum[i // 16]

    return dequantize_rows


@kernel
def from_f16(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 2):
            out[t, i] = half(raw[t], 2 * i)


@kernel
def from_bf16(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 2):
            bits = np.uint32(raw[t, 2 * i]) | (np.uint32(raw[t, 2 * i + 1]) << 8)
            out[t, i] = f32_from_bits(np.int32(bits << 16))


@kernel
def from_f32(raw, out):
    for t in range(raw.shape[0]):
        for i in range(raw.shape[1] // 4):
            bits = np.uint32(0)
            for byte in range(4):
                bits |= np.uint32(raw[t, 4 * i + byte]) << (8 * byte)
            out[t, i] = f32_from_bits(np.int32(bits))


# One entry a format, as in matmul.py.
_q4_0 = _dequantizer(BLOCK_FORMATS["q4_0"])
_q4_1 = _dequantizer(BLOCK_FORMATS["q4_1"])
_q5_0 = _dequantizer(BLOCK_FORMATS["q5_0"])
_q5_1 = _dequantizer(BLOCK_FORMATS["q5_1"])
_q8_0 = _dequantizer(BLOCK_FORMATS["q8_0"])
_q2_k = _dequantizer(BLOCK_FORMATS["q2_k"])
_q3_k = _dequantizer(BLOCK_FORMATS["q3_k"])
_q4_k = _dequantizer(BLOCK_FORMATS["q4_k"])
_q5_k = _dequantizer(BLOCK_FORMATS["q5_k"])
_q6_k = _dequantizer(BLOCK_FORMATS["q6_k"])
_iq4_nl = _dequantizer(BLOCK_FORMATS["iq4_nl"])
_iq4_xs = _dequantizer(BLOCK_FORMATS["iq4_xs"])


@kernel
def from_q4_0(raw, out):
    _q4_0(raw, out)


@kernel
def from_q4_1(raw, out):
    _q4_1(raw, out)


@kernel
def from_q5_0(raw, out):
    _q5_0(raw, out)


@kernel
def from_q5_1(raw, out):
    _q5_1(raw, out)


@kernel
def from_q8_0(raw, out):
    _q8_0(raw, out)


@kernel
def from_q2_k(raw, out):
    _q2_k(raw, out)


@kernel
def from_q3_k(raw, out):
    _q3_k(raw, out)


@kernel
def from_q4_k(raw, out):
    _q4_k(raw, out)


@kernel
def from_q5_k(raw, out):
    _q5_k(raw, out)


@kernel
def from_q6_k(raw, out):
    _q6_k(raw, out)


@kernel
def from_iq4_nl(raw, out):
    _iq4_nl(raw, out)


@kernel
def from_iq4_xs(raw, out):
    _iq4_xs(raw, out)


_KERNELS = {
    "q4_0": from_q4_0,
    "q4_1": from_q4_1,
    "q5_0": from_q5_0,
    "q5_1": from_q5_1,
    "q8_0": from_q8_0,
    "q2_k": from_q2_k,
    "q3_k": from_q3_k,
    "q4_k": from_q4_k,
    "q5_k": from_q5_k,
    "q6_k": from_q6_k,
    "iq4_nl": from_iq4_nl,
    "iq4_xs": from_iq4_xs,
    "f16": from_f16,
    "bf16": from_bf16,
    "f32": from_f32,
}


def dequantize(fmt: str, raw: np.ndarray, out: np.ndarray) -> None:
    """Writes rows of raw blocks, uint8 (T, bytes of a row), to out (T, cols) float32."""
    _KERNELS[fmt](raw, out)
