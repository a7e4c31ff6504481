"""Levels and scales as blocks hold them: the inverse of what kernels/formats reads."""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f16_to_f32, f32_to_f16
from kernels.emit.jit import jitted
from kernels.emit.vectors import I8X16, I16, Value
from kernels.encoding.lanes import ROUND

_ROUND = np.float32(ROUND)
_I1X16 = ir.VectorType(ir.IntType(1), 16)

# -- scales, in jitted code ------------------------------------------------------------------


@jitted
def put_half(out, at, value):
    """Writes a float16; returns what it is when read again."""
    bits = f32_to_f16(value)
    out[at], out[at + 1] = bits & 255, bits >> 8
    return f16_to_f32(bits)


@jitted
def nearest(value, low, high):
    """The nearest integer to a float32 that is not too large, within bounds."""
    return np.int32(min(max(value + _ROUND - _ROUND, np.float32(low)), np.float32(high)))


@jitted
def inverse(value):
    """One by a float32, 0 by 0."""
    return np.float32(0) if value == 0 else np.float32(1) / value


# -- levels, in emitted code -----------------------------------------------------------------


class Block:
    """A unit's levels, a byte each, and the place of the unit."""

    def __init__(self, e: Emit, q: Value, out: Value) -> None:
        self.e, self._q, self._out = e, q, out

    def levels(self, first: int) -> Value:
        """Sixteen levels from number `first` on."""
        return self.e.load(I8X16, self.e.at(self._q, first), 16)

    def field(self, first: int, low: int, bits: int, to: int) -> Value:
        """`bits` bits of sixteen levels from bit `low` on, moved to bit `to`."""
        e, v = self.e, self.levels(first)
        v = e.b.and_(v, e.constant(I8X16, ((1 << bits) - 1) << low))
        if to > low:
            return e.b.shl(v, e.constant(I8X16, to - low))
        return e.b.lshr(v, e.constant(I8X16, low - to)) if low > to else v

    def put(self, at: int, fields: list[Value]) -> None:
        """Writes sixteen bytes that are made of fields."""
        whole = fields[0]
        for field in fields[1:]:
            whole = self.e.b.or_(whole, field)
        self.e.store(whole, self.e.at(self._out, at))

    def put_bits(self, at: int, first: int, bit: int) -> None:
        """Writes two bytes with a bit of each of sixteen levels."""
        e = self.e
        flags = e.b.trunc(e.b.lshr(self.levels(first), e.constant(I8X16, bit)), _I1X16)
        e.store(e.b.bitcast(flags, I16), e.at(self._out, at))


def write_nibbles(block: Block, at: int, first: int = 0) -> None:
    """Byte i of 16 holds the levels i and 16 + i of 32."""
    block.put(at, [block.field(first, 0, 4, 0), block.field(first + 16, 0, 4, 4)])


def write_fifth_bits(block: Block, at: int) -> None:
    """Bit i of 4 bytes belongs to level i."""
    for half in range(2):
        block.put_bits(at + 2 * half, 16 * half, 4)


def write_wide_nibbles(block: Block, at: int, distance: int) -> None:
    """Byte i of `distance` holds the levels i and distance + i of as many twice."""
    for byte in range(0, 128, 16):
        first = byte // distance * 2 * distance + byte % distance
        fields = [block.field(first, 0, 4, 0), block.field(first + distance, 0, 4, 4)]
        block.put(at + byte, fields)


def write_pairs(block: Block, at: int, low: int) -> None:
    """Byte i of 32 holds two bits, from bit `low` on, of each of the levels i, 32 + i, 64 + i and
    96 + i of 128."""
    for byte in range(0, 64, 16):
        first = byte // 32 * 128 + byte % 32
        block.put(at + byte, [block.field(first + 32 * i, low, 2, 2 * i) for i in range(4)])


def write_upper_bits(block: Block, at: int, bit: int) -> None:
    """Bit k of byte i of 32 is that of level 32 k + i."""
    for byte in range(0, 32, 16):
        block.put(at + byte, [block.field(32 * k + byte, bit, 1, k) for k in range(8)])
