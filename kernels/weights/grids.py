"""Runs of 4 or 8 quants that are stored as their number in a grid: the types IQ1, IQ2 and IQ3, and
TQ1_0 once packed.

A grid's runs lie in a table of 4 bytes each, so that one gather finds the quants of a run for all
16 rows: those of 4 columns in a byte each, those of 8 in nibbles, the former 4 columns below the
latter. A quant is a digit of the grid, perhaps with a bit of its own above it that tells its sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I8X16, I8X64, I16X16, I32X16, Value
from kernels.weights.raw_rows import Rows, bits_of_columns
from kernels.weights.unpack import VECTOR, field, times

Quants = list[tuple[Value, int]]
"""Quants of 4 columns x 16 rows, <64 x i8>, and the first column."""


class Grid(NamedTuple):
    """A grid: its name in machine code, and its runs, uint8 (runs, 4 or 8)."""

    name: str
    codes: np.ndarray

    @property
    def columns(self) -> int:
        return int(self.codes.shape[1])

    def table(self) -> list[int]:
        """The word of each run."""
        step = 32 // self.columns
        shifts = np.array([8 * (i % 4) + step * (i // 4) for i in range(self.columns)])
        found: list[int] = (self.codes.astype(np.int64) << shifts).sum(axis=1).tolist()
        return found


def signed_values(values: tuple[int, ...]) -> tuple[int, ...]:
    """The table of quants whose sign is the bit above their digit: 3 or 8 values, then the same
    below zero."""
    half = values + (0,) * ((4 if len(values) == 3 else 8) - len(values))
    both = half + tuple(-v for v in half)
    return both + (0,) * (16 - len(both))


# -- one row's block -------------------------------------------------------------------------


@jitted
def word_at(row, at):
    """The 4 bytes from row[at] on as a number."""
    found = np.uint32(0)
    for byte in range(4):
        found |= np.uint32(row[at + byte]) << np.uint32(8 * byte)
    return found


@jitted
def even_signs(seven):
    """Eight signs of which seven are stored: an even number of them is set."""
    odd = seven ^ (seven >> 4)
    odd ^= odd >> 2
    odd ^= odd >> 1
    return seven | ((odd & 1) << 7)


@jitted
def put_run(q, first, run, signs, above):
    """Writes a run of quants from q[first] on, with their signs `above` so many bits."""
    for i in range(len(run)):
        q[first + i] = run[i] | (((signs >> i) & 1) << above)


# -- 16 rows ---------------------------------------------------------------------------------


def load_words(e: Emit, where: Value, n: int) -> list[Value]:
    """n words of each row."""
    return [e.load(I32X16, e.at(where, VECTOR * i), 16) for i in range(n)]


def bytes_of(e: Emit, vectors: list[Value]) -> list[Value]:
    """The bytes of words of all rows, lowest first, <16 x i32> each."""
    return [field(e, word, 8 * byte, 255) for word in vectors for byte in range(4)]


def load_bytes(e: Emit, where: Value) -> Value:
    """A byte of each row, as <16 x i32>."""
    return e.b.zext(e.load(I8X16, where, 16), I32X16)


def load_halves(e: Emit, where: Value) -> Value:
    """Two bytes of each row, as <16 x i32>."""
    return e.b.zext(e.load(I16X16, where, 16), I32X16)


def moved(e: Emit, v: Value, first: int, mask: int, to: int) -> Value:
    """Bits from `first` on of each word, moved to bit `to`."""
    shift = e.constant(I32X16, abs(first - to))
    if first != to:
        v = e.b.lshr(v, shift) if first > to else e.b.shl(v, shift)
    return e.b.and_(v, e.constant(I32X16, mask << to))


def with_high_bits(e: Emit, low: list[Value], high: Value, width: int) -> list[Value]:
    """Numbers of runs: bytes, and `width` more bits for each, the first one's lowest."""
    mask = (1 << width) - 1
    return [e.b.or_(v, moved(e, high, i * width, mask, 8)) for i, v in enumerate(low)]


def runs(e: Emit, grid: Grid, numbers: list[Value]) -> Quants:
    """The quants of 32 columns by the numbers of their runs."""
    table, found = e.table(f"dllama.grid.{grid.name}", grid.table()), []
    for i, number in enumerate(numbers):
        four = e.b.bitcast(e.gather(table, number), I8X64)
        if grid.columns == 4:
            found.append((four, 4 * i))
            continue
        found += [(e.bits(four, 0, 4), 8 * i), (e.bits(four, 4, 4), 8 * i + 4)]
    return found


def with_signs(e: Emit, quants: Quants, signs: Value, above: int) -> Quants:
    """Quants with a bit each `above` so many. In the words of signs bit i of a byte belongs to
    column 4 i + the byte's place."""
    bits = e.b.bitcast(signs, I8X64)
    return [(e.b.or_(v, e.move_bits(bits, at // 4, 1, above)), at) for v, at in quants]


_OF_EIGHTH_COLUMNS = 0xAA000000  # the bits of the columns 7, 15, 23 and 31 in a word of signs


def with_parity(e: Emit, signs: Value) -> Value:
    """Words of signs whose bits of each eighth column make the number of bits of its run even,
    whatever they were."""
    seven = e.b.and_(signs, e.constant(I32X16, ~_OF_EIGHTH_COLUMNS))
    odd = e.b.xor(seven, e.b.lshr(seven, e.constant(I32X16, 1)))
    odd = e.b.and_(odd, e.constant(I32X16, 0x55555555))
    for shift in (16, 8):
        odd = e.b.xor(odd, e.b.lshr(odd, e.constant(I32X16, shift)))
    eighths = e.b.shl(odd, e.constant(I32X16, 25))
    return e.b.or_(seven, e.b.and_(eighths, e.constant(I32X16, _OF_EIGHTH_COLUMNS)))


def sort_sevens(e: Emit, word: Value) -> Value:
    """Four fields of seven signs, from the lowest bit on, as a word of all 32."""
    spread = [moved(e, word, 7 * i, 127, 8 * i) for i in range(4)]
    return with_parity(e, bits_of_columns(e, joined(e, spread)))


def sort_top_nibbles(rows: Rows, offsets: range) -> Value:
    """A word of the upper nibbles of eight words of 4 bytes."""
    words = [rows.word(offset, "u32") for offset in offsets]
    return joined(rows.e, [moved(rows.e, word, 28, 15, 4 * i) for i, word in enumerate(words)])


def odd_steps(e: Emit, packed: list[Value], d: Value, step: float) -> list[Value]:
    """Scales of words of nibbles: twice a nibble and one, times d and a power of two."""
    unit, one = e.b.fmul(d, e.constant(F32X16, step)), e.constant(I32X16, 1)
    nibbles = [field(e, word, 4 * i, 15) for word in packed for i in range(8)]
    return [times(e, e.b.or_(e.b.shl(nibble, one), one), unit) for nibble in nibbles]


def joined(e: Emit, parts: list[Value]) -> Value:
    """The bits of several vectors in one."""
    found = parts[0]
    for part in parts[1:]:
        found = e.b.or_(found, part)
    return found
