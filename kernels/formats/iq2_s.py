"""IQ2_S: 256 values in 82 bytes. A float16 for all scales, the lower bytes of 32 numbers of runs of
8, their signs, the upper pairs of bits of the numbers, and a scale of 4 bits for each 16 values."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.formats.iq2_xs import VALUES, read_nibble_scales, unpack_nibble_scales
from kernels.weights.format import block_format
from kernels.weights.grid_members import grid_codes
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    load_bytes,
    load_words,
    put_run,
    runs,
    with_high_bits,
    with_signs,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows, bits_of_columns, half
from kernels.weights.unpack import VECTOR

GRID = Grid("iq2_s", grid_codes("iq2_s"))
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for i in range(32):
        high = (row[at + 66 + i // 4] >> (2 * (i % 4))) & 3
        run = _CODES[row[at + 2 + i] | (np.int64(high) << 8)]
        put_run(q, 8 * i, run, row[at + 34 + i], 2)


@jitted
def _read_scales(row, at, scale, minimum):
    read_nibble_scales(row, at + 74, half(row, at), scale, minimum)


def _sort_quants(rows: Rows) -> Blocks:
    for block in range(8):
        [numbers], [signs] = rows.words(2 + 4 * block, 1), rows.words(34 + 4 * block, 1)
        yield [numbers, bits_of_columns(rows.e, signs), rows.word(66 + block, "u8")]


def _unpack(e: Emit, where: Value) -> Quants:
    low, signs = load_words(e, where, 2)
    high = load_bytes(e, e.at(where, 2 * VECTOR))
    numbers = with_high_bits(e, bytes_of(e, [low]), high, 2)
    return with_signs(e, runs(e, GRID, numbers), signs, 2)


FORMAT = block_format(
    BlockType(
        "iq2_s",
        values=256,
        raw_bytes=82,
        runs=RunLayout(9, _unpack),
        offset=64,
        sub=16,
        table=VALUES,
        words=((74, "u32"), (78, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=unpack_nibble_scales,
    )
)
