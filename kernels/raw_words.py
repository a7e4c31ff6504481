"""Raw rows as vectors: the same word of 16 rows in each, its bits sorted as the layout wants.

Words of 4 bytes are transposed first; what sorts bits after that does the same in every row. The
layouts of files are ggml's (see raw_blocks.py), those of packed matrices in layout.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from kernels.emit import Emit
from kernels.layout import GROUP
from kernels.vectors import I16, I32, I32X16, Value

I32X4 = ir.VectorType(I32, 4)
EVERY_BYTE = 0x01010101  # times a byte: that byte four times


class Rows:
    """One unit of 16 raw rows, by their addresses."""

    def __init__(self, e: Emit, addresses: list[Value]) -> None:
        self.e, self._at = e, addresses

    def words(self, offset: int, count: int) -> list[Value]:
        """`count` words of all rows from byte `offset` on, <16 x i32> each."""
        found: list[Value] = []
        while count - len(found) >= 4:
            found += self._four_words(offset + 4 * len(found))
        return found + [self._gather(I32, offset + 4 * i) for i in range(len(found), count)]

    def halves(self, offset: int) -> Value:
        """The 2 bytes at `offset` of all rows, <16 x i16>."""
        return self._gather(I16, offset)

    def _gather(self, kind: Any, offset: int) -> Value:
        e = self.e
        v = ir.Constant(ir.VectorType(kind, GROUP), ir.Undefined)
        for lane, row in enumerate(self._at):
            item = e.load(kind, e.at(row, offset))
            v = e.b.insert_element(v, item, ir.Constant(I32, lane))
        return v

    def _four_words(self, offset: int) -> list[Value]:
        """16 bytes of 16 rows: quarter q of vector i holds row 4 q + i, and each quarter is
        turned over."""
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


def _low_nibbles(e: Emit, first: Value, second: Value) -> Value:
    return e.b.or_(_and(e, first, 0x0F), _up(e, _and(e, second, 0x0F), 4))


def _high_nibbles(e: Emit, first: Value, second: Value) -> Value:
    return e.b.or_(_and(e, _down(e, first, 4), 0x0F), _and(e, second, 0xF0))


_KEEP = {4: 0x0F, 2: 0x33, 1: 0x55}  # the lower ones of neighbouring runs of so many bits


def _turned(e: Emit, vectors: list[Value], width: int) -> list[Value]:
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


def _bits_of_columns(e: Emit, word: Value) -> Value:
    """A word with a bit for each of 32 columns: bit 4 w + b goes to bit w of byte b. Twice the
    unshuffle that moves all odd bits above the even ones (Warren, Hacker's Delight, 7-2)."""
    for shift, mask in _UNSHUFFLE * 2:
        differ = e.b.xor(word, _down(e, word, shift))
        differ = e.b.and_(differ, e.constant(I32X16, mask))
        word = e.b.xor(word, e.b.xor(differ, _up(e, differ, shift)))
    return word


# -- quants -----------------------------------------------------------------------------------

Blocks = Iterator[list[Value]]


def _nibbles_32(at: int) -> Callable[[Rows], Blocks]:
    """Byte i of 16 holds the columns i and 16 + i, as packed matrices do."""

    def blocks(rows: Rows) -> Blocks:
        yield rows.words(at, 4)

    return blocks


def _five_bits_32(at_bits: int, at: int) -> Callable[[Rows], Blocks]:
    def blocks(rows: Rows) -> Blocks:
        (bits,) = rows.words(at_bits, 1)
        yield [*rows.words(at, 4), _bits_of_columns(rows.e, bits)]

    return blocks


def _bytes_32(rows: Rows) -> Blocks:
    """Signed to unsigned: the dot product wants 0..255."""
    flip = rows.e.constant(I32X16, 0x80 * EVERY_BYTE)
    yield [rows.e.b.xor(word, flip) for word in rows.words(2, 8)]


def _nibbles_256(rows: Rows, at: int) -> Blocks:
    """Byte i of 32 holds the columns i and 32 + i of 64."""
    for chunk in range(4):
        words = rows.words(at + 32 * chunk, 8)
        for pick in (_low_nibbles, _high_nibbles):
            yield [pick(rows.e, words[i], words[4 + i]) for i in range(4)]


def _pairs_128(rows: Rows, at: int) -> Blocks:
    """Byte i of 32 holds the columns i, 32 + i, 64 + i and 96 + i."""
    halves = [_turned(rows.e, rows.words(at + 16 * half, 4), 2) for half in range(2)]
    yield from (list(pair) for pair in zip(*halves, strict=True))


def _bits_256(rows: Rows, at: int) -> list[Value]:
    """Bit k of byte i of 32 belongs to column 32 k + i."""
    return _turned(rows.e, rows.words(at, 8), 1)


def _q2_k(rows: Rows) -> Blocks:
    for chunk in range(2):
        yield from _pairs_128(rows, 16 + 32 * chunk)


def _q3_k(rows: Rows) -> Blocks:
    bits = _bits_256(rows, 0)
    for chunk in range(2):
        for i, pairs in enumerate(_pairs_128(rows, 32 + 32 * chunk)):
            yield [*pairs, bits[4 * chunk + i]]


def _q4_k(rows: Rows) -> Blocks:
    yield from _nibbles_256(rows, 16)


def _q5_k(rows: Rows) -> Blocks:
    bits = _bits_256(rows, 16)
    for i, nibbles in enumerate(_nibbles_256(rows, 48)):
        yield [*nibbles, bits[i]]


def _q6_k(rows: Rows) -> Blocks:
    """Byte i of 64 holds the columns i and 64 + i of 128."""
    for chunk in range(2):
        words = rows.words(64 * chunk, 16)
        upper = _pairs_128(rows, 128 + 32 * chunk)
        for pick in (_low_nibbles, _high_nibbles):
            for first in (0, 8):
                low = [pick(rows.e, words[first + i], words[first + 4 + i]) for i in range(4)]
                yield low + next(upper)


def _iq4_xs(rows: Rows) -> Blocks:
    for block in range(8):
        yield rows.words(8 + 16 * block, 4)


QUANTS: dict[str, Callable[[Rows], Blocks]] = {
    "q4_0": _nibbles_32(2),
    "q4_1": _nibbles_32(4),
    "q5_0": _five_bits_32(2, 6),
    "q5_1": _five_bits_32(4, 8),
    "q8_0": _bytes_32,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "iq4_nl": _nibbles_32(2),
    "iq4_xs": _iq4_xs,
}
"""By format: the vectors of each 32 columns of a unit, <16 x i32>, low bits first."""
