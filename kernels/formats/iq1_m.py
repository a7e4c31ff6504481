"""IQ1_M: 256 values in 56 bytes. The lower bytes of 32 numbers of runs of 8, the upper 3 bits of
each number and a sign, and four halves with a scale of 3 bits for each 16 values, whose upper
nibbles are a float16 for all. Values are -1, 0 and 1, a run's moved by an eighth up, or with the
sign down: quants stand for eighths here."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f16_to_f32
from kernels.emit.jit import jitted
from kernels.emit.vectors import F16X16, F32X16, I16X16, I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.grid_members import grid_codes
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    joined,
    load_halves,
    load_words,
    moved,
    put_run,
    runs,
    with_high_bits,
    word_at,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows
from kernels.weights.unpack import VECTOR, Scales, field, times, words

_UP = grid_codes("iq1")
GRID = Grid("iq1_m", np.concatenate([_UP, _UP | 4]))  # a run's sign is the top bit of its number
VALUES = (-7, 1, 9, 0, -9, -1, 7) + (0,) * 9
EIGHTH = 0.125
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for i in range(32):
        high = np.int64((row[at + 32 + i // 2] >> (4 * (i % 2))) & 15)
        put_run(q, 8 * i, _CODES[row[at + i] | (high << 8)], 0, 3)


@jitted
def _read_scales(row, at, scale, minimum):
    a, b = word_at(row, at + 48), word_at(row, at + 52)
    bits = ((a >> 12) & 0xF) | ((a >> 24) & 0xF0) | ((b >> 4) & 0xF00) | ((b >> 16) & 0xF000)
    d = f16_to_f32(np.uint16(bits)) * np.float32(EIGHTH)
    for i in range(16):
        word = a if i < 8 else b
        steps = (word >> (3 * (i % 4) + 16 * (i // 4 % 2))) & 7
        scale[i], minimum[i] = d * np.float32(2 * steps + 1), 0


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        yield [*rows.words(4 * block, 1), rows.word(32 + 2 * block, "u16")]


def _unpack(e: Emit, where: Value) -> Quants:
    low, high = load_words(e, where, 1), load_halves(e, e.at(where, VECTOR))
    return runs(e, GRID, with_high_bits(e, bytes_of(e, low), high, 4))


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    a, b = words(e, where, 2)
    nibbles = [(a, 12), (a, 28), (b, 12), (b, 28)]
    bits = joined(e, [moved(e, v, at, 15, 4 * i) for i, (v, at) in enumerate(nibbles)])
    d = e.b.fpext(e.b.bitcast(e.b.trunc(bits, I16X16), F16X16), F32X16)
    d = e.b.fmul(d, e.constant(F32X16, EIGHTH))
    one, values = e.constant(I32X16, 1), []
    for i in range(16):
        steps = field(e, a if i < 8 else b, 3 * (i % 4) + 16 * (i // 4 % 2), 7)
        values.append(times(e, e.b.or_(e.b.shl(steps, one), one), d))
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


FORMAT = block_format(
    BlockType(
        "iq1_m",
        values=256,
        raw_bytes=56,
        runs=RunLayout(6, _unpack),
        offset=16,
        sub=16,
        table=VALUES,
        words=((48, "u32"), (52, "u32")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
