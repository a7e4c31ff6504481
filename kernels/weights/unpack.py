"""From packed bits to what a dot product reads, in emitted code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kernels.emit.emitter import Emit
from kernels.emit.vectors import F32X16, I8X64, I32X16, Value
from kernels.weights.layout import GROUP, BlockType

VECTOR = 64  # bytes
HALVES = 2 * GROUP  # bytes of a float16 for each of 16 rows

assert F32X16.count == GROUP


class Scales(NamedTuple):
    """The scales of 32 columns of 16 rows: one vector, or one for each 16 columns; and the minima,
    which multiply minus the activations' sum."""

    factors: list[Value]
    minima: list[Value]


# -- quants ----------------------------------------------------------------------------------


def quants(e: Emit, fmt: BlockType, where: Value) -> list[tuple[Value, int]]:
    """(quants of 4 columns x 16 rows as <64 x i8>, first column), for 32 columns."""
    low = fmt.runs.unpack(e, where) if fmt.runs else _LOW[fmt.low_bits](e, where)
    above = e.at(where, fmt.low_bits * VECTOR)
    if fmt.high_bits == 1:
        low = _with_one_bit(e, low, above, fmt.low_bits)
    elif fmt.high_bits == 2:
        low = _with_two_bits(e, low, above)
    shift = 0 if is_signed(e, fmt) else fmt.offset
    if fmt.table is not None:
        table = [(v + shift) & 0xFF for v in fmt.table]
        low = [(e.look_up(v, table), column) for v, column in low]
    elif is_signed(e, fmt):
        low = [(e.b.xor(v, e.constant(I8X64, 0x80)), column) for v, column in low]
    return low


def is_signed(e: Emit, fmt: BlockType) -> bool:
    """True if `quants` are signed bytes, without the offset: where they take all 8 bits and the
    processor's dot product prefers it."""
    return fmt.offset == 128 and e.family.wants_signed


def largest_quant(e: Emit, fmt: BlockType) -> int:
    """The largest magnitude of what `quants` returns."""
    if fmt.runs or is_signed(e, fmt):
        return 128
    if fmt.table is not None:
        return max(fmt.table) + fmt.offset
    return (1 << (fmt.low_bits + fmt.high_bits)) - 1


def _nibbles(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """Low nibbles hold columns 0-15 of a block, high ones 16-31."""
    vectors = [e.load(I8X64, e.at(where, VECTOR * j), 64) for j in range(4)]
    low = [(e.bits(v, 0, 4), 4 * j) for j, v in enumerate(vectors)]
    return low + [(e.bits(v, 4, 4), 16 + 4 * j) for j, v in enumerate(vectors)]


def _pairs(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """Two bits each; a vector holds 16 columns."""
    vectors = [e.load(I8X64, e.at(where, VECTOR * j), 64) for j in range(2)]
    return [(e.bits(v, 2 * i, 2), 16 * j + 4 * i) for j, v in enumerate(vectors) for i in range(4)]


def _bits(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """Bit i of a byte belongs to column 4 i + the byte's place."""
    vector = e.load(I8X64, where, 64)
    return [(e.bits(vector, i, 1), 4 * i) for i in range(8)]


def _bytes(e: Emit, where: Value) -> list[tuple[Value, int]]:
    return [(e.load(I8X64, e.at(where, VECTOR * j), 64), 4 * j) for j in range(8)]


_LOW: dict[int, Callable[[Emit, Value], list[tuple[Value, int]]]] = {
    1: _bits,
    2: _pairs,
    4: _nibbles,
    8: _bytes,
}


def _with_one_bit(
    e: Emit, low: list[tuple[Value, int]], above: Value, low_bits: int
) -> list[tuple[Value, int]]:
    """One vector of upper bits: bit i of a byte belongs to column 4 i + the byte's place."""
    bits = e.load(I8X64, above, 64)
    return [(e.b.or_(v, e.move_bits(bits, column // 4, 1, low_bits)), column) for v, column in low]


def _with_two_bits(e: Emit, low: list[tuple[Value, int]], above: Value) -> list[tuple[Value, int]]:
    """Two vectors of pairs of upper bits, laid out as in _pairs."""
    vectors = [e.load(I8X64, e.at(above, VECTOR * j), 64) for j in range(2)]
    return [
        (e.b.or_(v, e.move_bits(vectors[column // 16], column % 16 // 2, 2, 4)), column)
        for v, column in low
    ]


# -- scales: what the types' own functions are made of ---------------------------------------


def words(e: Emit, where: Value, n: int) -> list[Value]:
    """n words of 4 bytes of all 16 rows."""
    return [e.load(I32X16, e.at(where, VECTOR * i), HALVES) for i in range(n)]


def field(e: Emit, word: Value, shift: int, mask: int) -> Value:
    """Some bits of each word."""
    moved = e.b.lshr(word, e.constant(I32X16, shift)) if shift else word
    return e.b.and_(moved, e.constant(I32X16, mask))


def joined(e: Emit, low: Value, high: Value) -> Value:
    """Four low bits and two above them."""
    return e.b.or_(low, e.b.shl(high, e.constant(I32X16, 4)))


def times(e: Emit, integer: Value, factor: Value) -> Value:
    return e.b.fmul(e.to_f32(integer), factor)


def less_32(e: Emit, scale: Value) -> Value:
    """Scales of 6 bits that are stored 32 too large."""
    return e.b.sub(scale, e.constant(I32X16, 32))
