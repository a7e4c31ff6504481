"""IQ2_XS: 256 values in 74 bytes. A float16 for all scales, 32 halves with the number of a run of 8
(9 bits) and seven of its signs, and a scale of 4 bits for each 16 values."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.grid_members import grid_codes
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    even_signs,
    joined,
    load_words,
    moved,
    odd_steps,
    put_run,
    runs,
    signed_values,
    with_parity,
    with_signs,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows, bits_of_columns, half
from kernels.weights.unpack import VECTOR, Scales, words

GRID = Grid("iq2_xs", grid_codes("iq2_xs"))
VALUES = signed_values((8, 25, 43))
_CODES = GRID.codes


@jitted
def _read_quants(row, at, q):
    for i in range(32):
        low, high = row[at + 2 + 2 * i], row[at + 3 + 2 * i]
        run = _CODES[low | (np.int64(high & 1) << 8)]
        put_run(q, 8 * i, run, even_signs(np.int64(high >> 1)), 2)


@jitted
def read_nibble_scales(row, at, d, scale, minimum):
    """Scales of 4 bits for each 16 values, from row[at] on."""
    for i in range(16):
        steps = 2 * ((row[at + i // 2] >> (4 * (i % 2))) & 15) + 1
        scale[i], minimum[i] = d * np.float32(steps) * np.float32(0.125), 0


@jitted
def _read_scales(row, at, scale, minimum):
    read_nibble_scales(row, at + 66, half(row, at), scale, minimum)


def _sort_quants(rows: Rows) -> Blocks:
    """The ninth bits of the numbers take the places of the eighth signs, which follow from the
    others."""
    e = rows.e
    for block in range(8):
        pair = rows.words(2 + 8 * block, 2)
        low = _each_second_byte(e, pair, 0)
        high = _each_second_byte(e, pair, 8)
        signs = e.b.and_(e.b.lshr(high, e.constant(I32X16, 1)), e.constant(I32X16, 0x7F7F7F7F))
        ninth = e.b.shl(e.b.and_(high, e.constant(I32X16, 0x01010101)), e.constant(I32X16, 7))
        yield [low, bits_of_columns(e, e.b.or_(signs, ninth))]


def _each_second_byte(e: Emit, pair: list[Value], at: int) -> Value:
    """Bytes 0 and 2 of two words in one, or with `at` 8 the bytes 1 and 3."""
    sources = [(word, at + shift) for word in pair for shift in (0, 16)]
    return joined(e, [moved(e, v, bit, 255, 8 * i) for i, (v, bit) in enumerate(sources)])


def _unpack(e: Emit, where: Value) -> Quants:
    low, signs = load_words(e, where, 2)
    numbers = [
        e.b.or_(v, moved(e, signs, 25 + 2 * i, 1, 8)) for i, v in enumerate(bytes_of(e, [low]))
    ]
    return with_signs(e, runs(e, GRID, numbers), with_parity(e, signs), 2)


def unpack_nibble_scales(e: Emit, where: Value) -> list[Scales]:
    """Scales of 4 bits for each 16 columns in two words, then a float16 for all."""
    d = e.load_f16(e.at(where, 2 * VECTOR))
    values = odd_steps(e, words(e, where, 2), d, 0.125)
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


FORMAT = block_format(
    BlockType(
        "iq2_xs",
        values=256,
        raw_bytes=74,
        runs=RunLayout(8, _unpack),
        offset=64,
        sub=16,
        table=VALUES,
        words=((66, "u32"), (70, "u32"), (0, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=unpack_nibble_scales,
    )
)
