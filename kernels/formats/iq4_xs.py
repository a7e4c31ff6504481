"""IQ4_XS: 256 values in 136 bytes. A float16 for all scales, a scale of 6 bits for each 32 values
that is 32 too large (upper pairs in 2 bytes, low nibbles in 4), and nibbles that number the entries
of IQ4_NL's table."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import I16X16, I32X16, Value
from kernels.formats.iq4_nl import VALUES
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, half
from kernels.weights.simple_blocks import read_nibbles
from kernels.weights.unpack import HALVES, VECTOR, Scales, field, joined, less_32, times, words


@jitted
def _read_quants(row, at, q):
    for block in range(8):
        read_nibbles(row, at + 8 + 16 * block, q[32 * block : 32 * block + 32])


@jitted
def _read_scales(row, at, scale, minimum):
    d, high_bits = half(row, at), np.uint16(row[at + 2] | (np.uint16(row[at + 3]) << 8))
    for i in range(8):
        low = (row[at + 4 + i // 2] >> (4 * (i % 2))) & 15
        high = (high_bits >> (2 * i)) & 3
        scale[2 * i : 2 * i + 2] = d * np.float32(np.int32(low | (high << 4)) - 32)
        minimum[2 * i : 2 * i + 2] = 0


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        yield rows.words(8 + 16 * block, 4)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    [low_bits] = words(e, where, 1)
    d = e.load_f16(e.at(where, VECTOR))
    high_bits = e.b.zext(e.load(I16X16, e.at(where, VECTOR + HALVES), 32), I32X16)
    found = []
    for i in range(8):
        scale = joined(e, field(e, low_bits, 4 * i, 15), field(e, high_bits, 2 * i, 3))
        found.append(Scales([times(e, less_32(e, scale), d)], []))
    return found


FORMAT = block_format(
    BlockType(
        "iq4_xs",
        values=256,
        raw_bytes=136,
        low_bits=4,
        offset=128,
        table=VALUES,
        words=((4, "u32"), (0, "f16"), (2, "u16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
