"""TQ1_0: 256 values of -1, 0 and 1 in 54 bytes. Fractions of 256 in base 3, a byte for the digits
of five columns (48 bytes) or four (4 bytes), and a float16 that scales all.

The digits of a byte lie 32, 16 or 4 columns apart. Packed, eight neighbours are a number of 13
bits: 58 bytes where the file has 54, and every 32 columns can be read alone."""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import I8X16, I8X64, I16, I16X16, I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.grids import (
    Grid,
    Quants,
    bytes_of,
    joined,
    load_bytes,
    load_halves,
    load_words,
    moved,
    runs,
    with_high_bits,
)
from kernels.weights.layout import BlockType, RunLayout
from kernels.weights.raw_rows import Blocks, Rows
from kernels.weights.simple_blocks import one_scale, read_scale
from kernels.weights.unpack import HALVES, VECTOR

GRID = Grid("tq1_0", (np.arange(3**8)[:, None] // 3 ** np.arange(8) % 3).astype(np.uint8))
PARTS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
"""Bytes of a block: the first, how many, and the digits of each; the columns follow each other."""

_I16X64 = ir.VectorType(I16, 64)


@jitted
def _read_part(row, first, n_bytes, n_digits, q):
    for digit in range(n_digits):
        for i in range(n_bytes):
            fraction = (np.int64(row[first + i]) * 3**digit) & 255
            q[digit * n_bytes + i] = (fraction * 3) >> 8


@jitted
def _read_quants(row, at, q):
    _read_part(row, at, 32, 5, q)
    _read_part(row, at + 32, 16, 5, q[160:])
    _read_part(row, at + 48, 4, 4, q[240:])


@jitted
def _read_scales(row, at, scale, minimum):
    read_scale(row, at + 52, scale, minimum)


def _digits(e: Emit, words: list[Value], n_digits: int) -> list[Value]:
    """The digits of each 4 columns, <64 x i8>, in the order of the columns."""
    fractions, found = [e.b.bitcast(word, I8X64) for word in words], []
    three, byte = e.constant(_I16X64, 3), e.constant(_I16X64, 8)
    for _ in range(n_digits):
        tripled = [e.b.mul(e.b.zext(v, _I16X64), three) for v in fractions]
        found += [e.b.trunc(e.b.lshr(v, byte), I8X64) for v in tripled]
        fractions = [e.b.trunc(v, I8X64) for v in tripled]
    return found


def _number(e: Emit, former: Value, latter: Value) -> Value:
    """Eight digits as a number, <16 x i32>, the first one lowest."""
    powers, nothing = ir.Constant(I8X64, [1, 3, 9, 27] * 16), e.constant(I32X16, 0)
    low, high = (e.dot(nothing, digits, powers) for digits in (former, latter))
    return e.b.add(low, e.b.mul(high, e.constant(I32X16, 81)))


def _sort_quants(rows: Rows) -> Blocks:
    e, fours = rows.e, []
    for first, n_bytes, n_digits in PARTS:
        fours += _digits(e, rows.words(first, n_bytes // 4), n_digits)
    for block in range(0, 64, 8):
        numbers = [_number(e, *fours[block + i : block + i + 2]) for i in range(0, 8, 2)]
        low = joined(e, [moved(e, v, 0, 255, 8 * i) for i, v in enumerate(numbers)])
        high = joined(e, [moved(e, v, 8, 31, 5 * i) for i, v in enumerate(numbers)])
        above = e.b.trunc(e.b.lshr(high, e.constant(I32X16, 16)), I8X16)
        yield [low, e.b.trunc(high, I16X16), above]


def _unpack(e: Emit, where: Value) -> Quants:
    low = bytes_of(e, load_words(e, where, 1))
    above = load_bytes(e, e.at(where, VECTOR + HALVES))
    high = e.b.or_(load_halves(e, e.at(where, VECTOR)), moved(e, above, 0, 255, 16))
    return runs(e, GRID, with_high_bits(e, low, high, 5))


FORMAT = block_format(
    BlockType(
        "tq1_0",
        values=256,
        raw_bytes=54,
        runs=RunLayout(7, _unpack),
        offset=1,
        words=((52, "f16"),),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=one_scale(8),
    )
)
