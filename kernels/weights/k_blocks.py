"""The K-quants' blocks of 256 values: what more than one of the types stores in the same way."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.weights.layout import GROUP
from kernels.weights.raw_rows import Blocks, Rows, half, high_nibbles, low_nibbles, transposed
from kernels.weights.unpack import HALVES, Scales, field, joined, times, words

# -- one row's block -------------------------------------------------------------------------


@jitted
def read_pairs(row, at, q):
    """Byte i of 32 holds two bits of each of the columns i, 32 + i, 64 + i and 96 + i of 128."""
    for chunk in range(2):
        for pair in range(4):
            for i in range(32):
                q[chunk * 128 + pair * 32 + i] = (row[at + chunk * 32 + i] >> (2 * pair)) & 3


@jitted
def read_nibbles(row, at, q):
    """Byte i of 32 holds the columns i and 32 + i of 64."""
    for chunk in range(4):
        for i in range(32):
            byte = row[at + chunk * 32 + i]
            q[chunk * 64 + i], q[chunk * 64 + 32 + i] = byte & 15, byte >> 4


@jitted
def read_upper_bits(row, at, q, shift):
    """Bit k of byte i of 32 belongs to column 32 k + i; it goes above `shift` lower ones."""
    for i in range(256):
        q[i] |= ((row[at + i % 32] >> (i // 32)) & 1) << shift


@jitted
def read_six_bit_scales_and_minima(row, at, scale, minimum):
    """Two float16 and 12 bytes with 8 scales and 8 minima of 6 bits; the upper two bits of the last
    four are kept above the first four."""
    d, d_min, s = half(row, at), half(row, at + 2), at + 4
    for i in range(8):
        if i < 4:
            a, b = row[s + i] & 63, row[s + 4 + i] & 63
        else:
            a = (row[s + 4 + i] & 15) | ((row[s + i - 4] >> 6) << 4)
            b = (row[s + 4 + i] >> 4) | ((row[s + i] >> 6) << 4)
        scale[2 * i : 2 * i + 2] = d * np.float32(a)
        minimum[2 * i : 2 * i + 2] = -d_min * np.float32(b)


# -- 16 rows' blocks, laid out as above ------------------------------------------------------


def sort_nibbles(rows: Rows, at: int) -> Blocks:
    for chunk in range(4):
        raw = rows.words(at + 32 * chunk, 8)
        for pick in (low_nibbles, high_nibbles):
            yield [pick(rows.e, raw[i], raw[4 + i]) for i in range(4)]


def sort_pairs(rows: Rows, at: int) -> Blocks:
    """The pairs of 128 columns."""
    halves = [transposed(rows.e, rows.words(at + 16 * i, 4), 2) for i in range(2)]
    yield from (list(pair) for pair in zip(*halves, strict=True))


def sort_upper_bits(rows: Rows, at: int) -> list[Value]:
    """A vector for each 32 columns."""
    return transposed(rows.e, rows.words(at, 8), 1)


def unpack_six_bit_scales_and_minima(e: Emit, where: Value) -> list[Scales]:
    a, b, c = words(e, where, 3)
    d, d_min = e.load_f16(e.at(where, 12 * GROUP)), e.load_f16(e.at(where, 12 * GROUP + HALVES))
    found = []
    for i in range(8):
        k = 8 * (i % 4)
        if i < 4:
            scale, minimum = field(e, a, k, 63), field(e, b, k, 63)
        else:
            scale = joined(e, field(e, c, k, 15), field(e, a, k + 6, 3))
            minimum = joined(e, field(e, c, k + 4, 15), field(e, b, k + 6, 3))
        found.append(Scales([times(e, scale, d)], [times(e, minimum, d_min)]))
    return found
