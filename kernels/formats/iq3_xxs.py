"""IQ3_XXS: 256 values in 98 bytes. A float16 for all scales, 64 numbers of runs of 4, a byte each,
then for each 32 values a word with seven signs of each 8 and a scale of 4 bits."""

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

GRID = Grid("iq3_xxs", grid_codes("iq3_xxs"))
VALUES = signed_values((4, 12, 20, 28, 36, 44, 52, 62))
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for block in range(8):
        first, signs = at + 2 + 8 * block, word_at(row, at + 66 + 4 * block)
        for i in range(8):
            eight = even_signs((signs >> (7 * (i // 2))) & 127)
            four = eight >> (4 * (i % 2))
            put_run(q, 32 * block + 4 * i, _CODES[row[first + i]], four, 3)


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at)
    for block in range(8):
        steps = 2 * (row[at + 69 + 4 * block] >> 4) + 1
        scale[2 * block : 2 * block + 2] = d * np.float32(steps) * np.float32(0.25)
        minimum[2 * block : 2 * block + 2] = 0


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        [signs] = rows.words(66 + 4 * block, 1)
        yield [*rows.words(2 + 8 * block, 2), sort_sevens(rows.e, signs)]


def _sort_scales(rows: Rows) -> list[Value]:
    return [sort_top_nibbles(rows, range(66, 98, 4)), rows.word(0, "f16")]


def _unpack(e: Emit, where: Value) -> Quants:
    *numbers, signs = load_words(e, where, 3)
    return with_signs(e, runs(e, GRID, bytes_of(e, numbers)), signs, 3)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    d = e.load_f16(e.at(where, VECTOR))
    return [Scales([v], []) for v in odd_steps(e, words(e, where, 1), d, 0.25)]


FORMAT = block_format(
    BlockType(
        "iq3_xxs",
        values=256,
        raw_bytes=98,
        runs=RunLayout(12, _unpack),
        offset=64,
        table=VALUES,
        words=((66, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
        sort_scales=_sort_scales,
    )
)
