"""F32, F16 and BF16: plain numbers."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_from_bits
from kernels.emit.jit import jitted
from kernels.emit.vectors import I32, I32X16, Value
from kernels.weights.format import float_format
from kernels.weights.layout import FloatType
from kernels.weights.raw_rows import half


@jitted
def _read_f32(row, at):
    bits = np.uint32(0)
    for byte in range(4):
        bits |= np.uint32(row[at + byte]) << (8 * byte)
    return f32_from_bits(np.int32(bits))


@jitted
def _read_bf16(row, at):
    bits = np.uint32(row[at]) | (np.uint32(row[at + 1]) << 8)
    return f32_from_bits(np.int32(bits << 16))


def _fma(e: Emit, acc: Value, weights: Value, factor: Value) -> Value:
    return e.fma(factor, weights, acc)


def _load_words(e: Emit, where: Value) -> Value:
    return e.load(I32X16, where, 64)


def _spread_pair(e: Emit, where: Value) -> Value:
    """Two neighbouring bfloat16 activations for all lanes."""
    return e.splat(e.load(I32, where, 4))


F32 = FloatType("f32", 4, _read_f32, Emit.load_f32, Emit.load_splat_f32, _fma)
F16 = FloatType("f16", 2, half, Emit.load_f16, Emit.load_splat_f32, _fma)
BF16 = FloatType("bf16", 2, _read_bf16, _load_words, _spread_pair, Emit.dot_bf16, columns=2)

FORMATS = {fmt.name: float_format(fmt) for fmt in (F32, F16, BF16)}
