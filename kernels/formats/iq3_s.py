"""IQ3_S: 256 values in 110 bytes. A float16 for all scales, the lower bytes of 64 numbers of runs
of 4, the ninth bits of the numbers, signs, and a scale of 4 bits for each 32 values."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.weights.format import block_format
from kernels.weights.grid_members import grid_codes
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    load_bytes,
    load_words,
    odd_steps,
    put_run,
    runs,
    signed_values,
    with_high_bits,
    with_signs,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows, bits_of_columns, half
from kernels.weights.unpack import VECTOR, Scales, words

GRID = Grid("iq3_s", grid_codes("iq3_s"))
VALUES = signed_values((1, 3, 5, 7, 9, 11, 13, 15))
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for i in range(64):
        ninth = np.int64((row[at + 66 + i // 8] >> (i % 8)) & 1)
        signs = row[at + 74 + i // 2] >> (4 * (i % 2))
        put_run(q, 4 * i, _CODES[row[at + 2 + i] | (ninth << 8)], signs, 3)


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at)
    for i in range(8):
        steps = 2 * ((row[at + 106 + i // 2] >> (4 * (i % 2))) & 15) + 1
        scale[2 * i : 2 * i + 2], minimum[2 * i : 2 * i + 2] = d * np.float32(steps), 0


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        [signs] = rows.words(74 + 4 * block, 1)
        ninth = rows.word(66 + block, "u8")
        yield [*rows.words(2 + 8 * block, 2), bits_of_columns(rows.e, signs), ninth]


def _unpack(e: Emit, where: Value) -> Quants:
    *low, signs = load_words(e, where, 3)
    ninth = load_bytes(e, e.at(where, 3 * VECTOR))
    numbers = with_high_bits(e, bytes_of(e, low), ninth, 1)
    return with_signs(e, runs(e, GRID, numbers), signs, 3)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    d = e.load_f16(e.at(where, VECTOR))
    return [Scales([v], []) for v in odd_steps(e, words(e, where, 1), d, 1.0)]


FORMAT = block_format(
    BlockType(
        "iq3_s",
        values=256,
        raw_bytes=110,
        runs=RunLayout(13, _unpack),
        offset=16,
        table=VALUES,
        words=((106, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
