"""MXFP4: 32 values in 17 bytes, a power of two (E8M0) as the scale and nibbles that number the fp4
values (E2M1). The table holds them doubled, and the scale is read as half of what it says."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_from_bits
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I8X16, I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.layout import GROUP, BlockType
from kernels.weights.simple_blocks import read_nibbles, sort_nibbles
from kernels.weights.unpack import Scales

VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""ggml's kvalues_mxfp4."""

HALF_OF_LEAST = 0x00200000  # the bits of 2^-128; the exponents 0 and 1 have no normal half


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 1, q)


@jitted
def _read_scales(row, at, scale, minimum):
    exponent = np.int32(row[at])
    bits = (exponent - 1) << 23 if exponent > 1 else HALF_OF_LEAST << exponent
    scale[:], minimum[:] = f32_from_bits(np.int32(bits)), 0


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    exponent, one = e.b.zext(e.load(I8X16, where, GROUP), I32X16), e.constant(I32X16, 1)
    normal = e.b.shl(e.b.sub(exponent, one), e.constant(I32X16, 23))
    subnormal = e.b.shl(e.constant(I32X16, HALF_OF_LEAST), e.b.and_(exponent, one))
    bits = e.b.select(e.b.icmp_unsigned(">", exponent, one), normal, subnormal)
    return [Scales([e.b.bitcast(bits, F32X16)], [])]


FORMAT = block_format(
    BlockType(
        "mxfp4",
        values=32,
        raw_bytes=17,
        low_bits=4,
        offset=16,
        table=VALUES,
        words=((0, "e8m0"),),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=sort_nibbles(1),
        unpack_scales=_unpack_scales,
    )
)
