"""IQ1_S: 256 values in 50 bytes. A float16 for all scales, the lower bytes of 32 numbers of runs of
8, and for each 32 values a half with the upper 3 bits of their numbers, a scale of 3 bits and a
sign. Values are -1, 0 and 1, all moved by an eighth up, or with the sign down."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I16X16, I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.grid_members import grid_codes
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    load_halves,
    load_words,
    put_run,
    runs,
    sort_top_nibbles,
    with_high_bits,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows, half
from kernels.weights.unpack import VECTOR, Scales, field, times, words

GRID = Grid("iq1_s", grid_codes("iq1"))
EIGHTH = 0.125
_CODES = GRID.codes


@jitted
def _half_word(row, at):
    return np.int64(row[at]) | (np.int64(row[at + 1]) << 8)


@jitted
def _read_quants(row, at, q):
    for i in range(32):
        high = (_half_word(row, at + 34 + 2 * (i // 4)) >> (3 * (i % 4))) & 7
        put_run(q, 8 * i, _CODES[row[at + 2 + i] | (high << 8)], 0, 2)


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at)
    for i in range(8):
        bits = row[at + 35 + 2 * i] >> 4
        factor = d * np.float32(2 * (bits & 7) + 1)
        eighth = factor * np.float32(EIGHTH)
        scale[2 * i : 2 * i + 2] = factor
        minimum[2 * i : 2 * i + 2] = -eighth if bits & 8 else eighth


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        high = rows.word(34 + 2 * block, "u16")
        mask = I16X16([0x0FFF] * 16)
        yield [*rows.words(2 + 4 * block, 1), rows.e.b.and_(high, mask)]


def _sort_scales(rows: Rows) -> list[Value]:
    return [sort_top_nibbles(rows, range(32, 48, 2)), rows.word(0, "f16")]


def _unpack(e: Emit, where: Value) -> Quants:
    low, high = load_words(e, where, 1), load_halves(e, e.at(where, VECTOR))
    return runs(e, GRID, with_high_bits(e, bytes_of(e, low), high, 3))


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    [packed], d = words(e, where, 1), e.load_f16(e.at(where, VECTOR))
    found = []
    for i in range(8):
        steps = e.b.or_(_doubled(e, field(e, packed, 4 * i, 7)), e.constant(I32X16, 1))
        factor = times(e, steps, d)
        # Minima count minus the sum of the activations: the sign is turned round.
        eighth = e.b.fmul(factor, e.constant(F32X16, EIGHTH))
        sign = field(e, packed, 4 * i + 3, 1)
        is_down = e.b.icmp_unsigned("!=", sign, e.constant(I32X16, 0))
        found.append(Scales([factor], [e.b.select(is_down, eighth, e.b.fneg(eighth))]))
    return found


def _doubled(e: Emit, v: Value) -> Value:
    return e.b.shl(v, e.constant(I32X16, 1))


FORMAT = block_format(
    BlockType(
        "iq1_s",
        values=256,
        raw_bytes=50,
        runs=RunLayout(6, _unpack),
        offset=1,
        has_min=True,
        words=((34, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
        sort_scales=_sort_scales,
    )
)
