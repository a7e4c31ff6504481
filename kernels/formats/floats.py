"""F32, F16 and BF16: plain numbers."""

from __future__ import annotations

import numpy as np

from kernels.cpu import has_bf16_dot
from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_from_bits
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I32X16, Value
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


def _load_f32(e: Emit, where: Value) -> list[Value]:
    return [e.load_f32(where)]


def _load_f16(e: Emit, where: Value) -> list[Value]:
    return [e.load_f16(where)]


def _load_columns(e: Emit, where: Value) -> list[Value]:
    """Two columns of bfloat16, the second first: so the instruction for pairs adds them."""
    words = e.load(I32X16, where, 64)
    second = e.b.and_(words, e.constant(I32X16, -65536))
    first = e.b.shl(words, e.constant(I32X16, 16))
    return [e.b.bitcast(v, F32X16) for v in (second, first)]


def _load_pairs(e: Emit, where: Value) -> list[Value]:
    return [e.load(I32X16, where, 64)]


F32 = FloatType("f32", 4, _read_f32, _load_f32)
F16 = FloatType("f16", 2, half, _load_f16)
BF16_BY_COLUMNS = FloatType("bf16", 2, _read_bf16, _load_columns, columns=2)
BF16_BY_PAIRS = FloatType("bf16", 2, _read_bf16, _load_pairs, columns=2, is_dotted=True)
BF16 = BF16_BY_PAIRS if has_bf16_dot() else BF16_BY_COLUMNS

FORMATS = {fmt.name: float_format(fmt) for fmt in (F32, F16, BF16)}
