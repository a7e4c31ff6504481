"""Raw rows as files hold them: a number of one row in jitted code, and in emitted code vectors that
hold the same word of 16 rows.

Words of 4 bytes are transposed first; what sorts bits after that does the same in every row. The
layouts of files are ggml's (https://github.com/ggml-org/ggml, ggml-common.h and ggml-quants.c),
those of packed matrices in layout.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from llvmlite import ir

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f16_to_f32
from kernels.emit.jit import jitted
from kernels.emit.vectors import I32, I32X16, Value
from kernels.weights.layout import GROUP, WORD_BYTES

I32X4 = ir.VectorType(I32, 4)
EVERY_BYTE = 0x01010101  # times a byte: that byte four times

Blocks = Iterator[list[Value]]
"""The packed vectors, <16 x i32>, of each 32 columns of a unit."""


@jitted
def half(row, at):
    """The float16 at a byte offset, as float32."""
    return f16_to_f32(np.uint16(row[at] | (np.uint16(row[at + 1]) << 8)))


class Rows:
    """One unit of 16 raw rows, by their addresses."""

    def __init__(self, e: Emit, addresses: list[Value]) -> None:
        self.e, self._at = e, addresses

    def words(self, offset: int, count: int) -> list[Value]:
        """`count` words of 4 bytes of all rows from byte `offset` on, <16 x i32> each."""
        found: list[Value] = []
        while count - len(found) >= 4:
            found += self._four_words(offset + 4 * len(found))
        return found + [self.word(offset + 4 * i, "u32") for i in range(len(found), count)]

    def word(self, offset: int, kind: str) -> Value:
        """The word of a kind (see WORD_BYTES) at `offset` of all rows, as integers."""
        e, item = self.e, ir.IntType(8 * WORD_BYTES[kind])
        v = ir.Constant(ir.VectorType(item, GROUP), ir.Undefined)
        for lane, row in enumerate(self._at):
            v = e.b.insert_element(v, e.load(item, e.at(row, offset)), ir.Constant(I32, lane))
        return v

    def _four_words(self, offset: int) -> list[Value]:
        """16 bytes of 16 rows: quarter q of vector i holds row 4 q + i, and each quarter is
        transposed."""
        e = self.e
        rows = [e.load(I32X4, e.at(row, offset)) for row in self._at]
        a, b, c, d = (_joined(e, rows[i::4]) for i in range(4))
        found = []
        for half in ((0, 16, 1, 17), (2, 18, 3, 19)):
            ab, cd = _shuffled(e, a, b, half), _shuffled(e, c, d, half)
            found += [_shuffled(e, ab, cd, pick) for pick in ((0, 1, 16, 17), (2, 3, 18, 19))]
        return found


def _joined(e: Emit, parts: list[Value]) -> Value:
    while len(parts) > 1:
        n = 2 * parts[0].type.count
        pick = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [e.b.shuffle_vector(x, y, pick) for x, y in pairs]
    return parts[0]


def _shuffled(e: Emit, x: Value, y: Value, pick: tuple[int, ...]) -> Value:
    """The same pick from each quarter of x (0 to 15) and y (16 to 31)."""
    lanes = [4 * quarter + i for quarter in range(4) for i in pick]
    return e.b.shuffle_vector(x, y, ir.Constant(I32X16, lanes))


# -- bits of vectors: the same in each byte or word --------------------------------------------


def _and(e: Emit, v: Value, byte: int) -> Value:
    return e.b.and_(v, e.constant(I32X16, byte * EVERY_BYTE))


def _up(e: Emit, v: Value, n: int) -> Value:
    return e.b.shl(v, e.constant(I32X16, n))


def _down(e: Emit, v: Value, n: int) -> Value:
    return e.b.lshr(v, e.constant(I32X16, n))


def low_nibbles(e: Emit, first: Value, second: Value) -> Value:
    """The low nibbles of `first`'s bytes, below the low nibbles of `second`'s."""
    return e.b.or_(_and(e, first, 0x0F), _up(e, _and(e, second, 0x0F), 4))


def high_nibbles(e: Emit, first: Value, second: Value) -> Value:
    """The high nibbles of `first`'s bytes, below the high nibbles of `second`'s."""
    return e.b.or_(_and(e, _down(e, first, 4), 0x0F), _and(e, second, 0xF0))


def flipped(e: Emit, word: Value) -> Value:
    """Each byte with its top bit inverted: signed ones become unsigned ones, 128 larger."""
    return e.b.xor(word, e.constant(I32X16, 0x80 * EVERY_BYTE))


_KEEP = {4: 0x0F, 2: 0x33, 1: 0x55}
"""By the width of a run of bits: a mask of the lower one of each two neighbouring runs."""


def transposed(e: Emit, vectors: list[Value], width: int) -> list[Value]:
    """Fields of `width` bits: field w of byte i of vector k comes from field k of vector w.

    Squares of fields change places across the diagonal, from large squares to single fields.
    """
    v = list(vectors)
    size = len(v) // 2
    while size:
        shift = size * width
        for i in (i for i in range(len(v)) if not i & size):
            low, high = v[i], v[i + size]
            differ = _and(e, e.b.xor(_down(e, low, shift), high), _KEEP[shift])
            v[i], v[i + size] = e.b.xor(low, _up(e, differ, shift)), e.b.xor(high, differ)
        size //= 2
    return v


_UNSHUFFLE = ((1, 0x22222222), (2, 0x0C0C0C0C), (4, 0x00F000F0), (8, 0x0000FF00))


def bits_of_columns(e: Emit, word: Value) -> Value:
    """A word with a bit for each of 32 columns: bit 4 w + b goes to bit w of byte b. Twice the
    unshuffle that moves all odd bits above the even ones (Warren, Hacker's Delight, 7-2)."""
    return _swapped(e, word, _UNSHUFFLE * 2)


def pairs_of_columns(e: Emit, word: Value) -> Value:
    """A word with two bits for each of 16 columns: pair 4 w + b goes to pair w of byte b. The
    transpose of 4 x 4 pairs."""
    return _swapped(e, word, ((6, 0x00CC00CC), (12, 0x0000F0F0)))


def _swapped(e: Emit, word: Value, swaps: tuple[tuple[int, int], ...]) -> Value:
    """Bits under a mask change places with those `shift` above them, for each (shift, mask) in
    turn."""
    for shift, mask in swaps:
        differ = e.b.xor(word, _down(e, word, shift))
        differ = e.b.and_(differ, e.constant(I32X16, mask))
        word = e.b.xor(word, e.b.xor(differ, _up(e, differ, shift)))
    return word
