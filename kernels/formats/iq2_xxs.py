"""IQ2_XXS: 256 values in 66 bytes. A float16 for all scales, then for each 32 values four numbers
of runs of 8, a byte each, and a word with seven signs of each run and a scale of 4 bits."""

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
    even_signs,
    load_words,
    odd_steps,
    put_run,
    runs,
    signed_values,
    sort_sevens,
    sort_top_nibbles,
    with_signs,
    word_at,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows, half
from kernels.weights.unpack import VECTOR, Scales, words

GRID = Grid("iq2_xxs", grid_codes("iq2_xxs"))
VALUES = signed_values((8, 25, 43))
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for block in range(8):
        first, signs = at + 2 + 8 * block, word_at(row, at + 6 + 8 * block)
        for i in range(4):
            seven = (signs >> (7 * i)) & 127
            put_run(q, 32 * block + 8 * i, _CODES[row[first + i]], even_signs(seven), 2)


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at)
    for block in range(8):
        steps = 2 * (row[at + 9 + 8 * block] >> 4) + 1
        scale[2 * block : 2 * block + 2] = d * np.float32(steps) * np.float32(0.125)
        minimum[2 * block : 2 * block + 2] = 0


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        numbers, signs = rows.words(2 + 8 * block, 2)
        yield [numbers, sort_sevens(rows.e, signs)]


def _sort_scales(rows: Rows) -> list[Value]:
    return [sort_top_nibbles(rows, range(6, 66, 8)), rows.word(0, "f16")]


def _unpack(e: Emit, where: Value) -> Quants:
    numbers, signs = load_words(e, where, 2)
    return with_signs(e, runs(e, GRID, bytes_of(e, [numbers])), signs, 2)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    d = e.load_f16(e.at(where, VECTOR))
    return [Scales([v], []) for v in odd_steps(e, words(e, where, 1), d, 0.125)]


FORMAT = block_format(
    BlockType(
        "iq2_xxs",
        values=256,
        raw_bytes=66,
        runs=RunLayout(8, _unpack),
        offset=64,
        table=VALUES,
        words=((6, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
        sort_scales=_sort_scales,
    )
)
