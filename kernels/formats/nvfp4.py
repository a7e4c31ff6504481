"""NVFP4: 64 values in 36 bytes, four of unsigned fp8 (E4M3) that scale 16 values each and nibbles
that number the fp4 values (E2M1). The table holds them doubled, and a scale is read as half of what
it says. Byte i of 8 holds the columns i and 8 + i of 16."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_from_bits
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I32X16, Value
from kernels.formats.mxfp4 import VALUES
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, high_nibbles, low_nibbles
from kernels.weights.unpack import Scales, field, times, words

NO_NUMBER = 0x7F  # stands for 0
BIAS = 127 - 11  # to float32's exponent: 7 of E4M3's, 3 bits of the mantissa, and the half


@jitted
def _read_quants(row, at, q):
    for part in range(4):
        for i in range(8):
            byte = row[at + 4 + 8 * part + i]
            q[16 * part + i], q[16 * part + 8 + i] = byte & 15, byte >> 4


@jitted
def _read_scales(row, at, scale, minimum):
    for i in range(4):
        exponent, mantissa = np.int32((row[at + i] >> 3) & 15), np.int32(row[at + i] & 7)
        if exponent > 0:
            mantissa |= 8
        power = f32_from_bits(np.int32((max(exponent, 1) + BIAS) << 23))
        scale[i] = 0 if row[at + i] == NO_NUMBER else np.float32(mantissa) * power
        minimum[i] = 0


def _sort_quants(rows: Rows) -> Blocks:
    raw = rows.words(4, 8)
    for block in (raw[:4], raw[4:]):
        yield [
            pick(rows.e, block[i], block[2 + i])
            for pick in (low_nibbles, high_nibbles)
            for i in range(2)
        ]


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    [packed] = words(e, where, 1)
    factors = [_number(e, field(e, packed, 8 * i, 255)) for i in range(4)]
    return [Scales(factors[:2], []), Scales(factors[2:], [])]


def _number(e: Emit, byte: Value) -> Value:
    exponent, mantissa = field(e, byte, 3, 15), field(e, byte, 0, 7)
    is_normal = e.b.icmp_unsigned("!=", exponent, e.constant(I32X16, 0))
    one, leading = e.constant(I32X16, 1), e.constant(I32X16, 8)
    mantissa = e.b.select(is_normal, e.b.or_(mantissa, leading), mantissa)
    exponent = e.b.select(is_normal, exponent, one)
    bits = e.b.shl(e.b.add(exponent, e.constant(I32X16, BIAS)), e.constant(I32X16, 23))
    value = times(e, mantissa, e.b.bitcast(bits, F32X16))
    is_none = e.b.icmp_unsigned("==", byte, e.constant(I32X16, NO_NUMBER))
    return e.b.select(is_none, e.constant(F32X16, 0.0), value)


FORMAT = block_format(
    BlockType(
        "nvfp4",
        values=64,
        raw_bytes=36,
        low_bits=4,
        offset=16,
        sub=16,
        table=VALUES,
        words=((0, "u32"),),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
