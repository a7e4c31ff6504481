"""Blocks of 32 values: nibbles, perhaps with a fifth bit each, under one float16 scale and perhaps
one minimum. Byte i of 16 holds the columns i and 16 + i, as packed matrices do."""

from __future__ import annotations

from collections.abc import Callable

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.weights.raw_rows import Blocks, Rows, bits_of_columns, half
from kernels.weights.unpack import HALVES, Scales

# -- one row's block -------------------------------------------------------------------------


@jitted
def read_nibbles(row, at, q):
    for i in range(16):
        q[i], q[16 + i] = row[at + i] & 15, row[at + i] >> 4


@jitted
def read_fifth_bits(row, at, q):
    """Adds bit i of 4 bytes to quant i, above its nibble."""
    for i in range(32):
        q[i] |= ((row[at + i // 8] >> (i % 8)) & 1) << 4


@jitted
def read_scale(row, at, scale, minimum):
    scale[:] = half(row, at)
    minimum[:] = 0


@jitted
def read_scale_and_minimum(row, at, scale, minimum):
    scale[:], minimum[:] = half(row, at), half(row, at + 2)


# -- 16 rows' blocks -------------------------------------------------------------------------


def sort_nibbles(at: int) -> Callable[[Rows], Blocks]:
    """Nibbles from byte `at` of a block on."""

    def blocks(rows: Rows) -> Blocks:
        yield rows.words(at, 4)

    return blocks


def sort_five_bits(at_bits: int, at: int) -> Callable[[Rows], Blocks]:
    """Nibbles from byte `at` on, and their fifth bits from `at_bits` on."""

    def blocks(rows: Rows) -> Blocks:
        [bits] = rows.words(at_bits, 1)
        yield [*rows.words(at, 4), bits_of_columns(rows.e, bits)]

    return blocks


def unpack_scale(e: Emit, where: Value) -> list[Scales]:
    return [Scales([e.load_f16(where)], [])]


def one_scale(n_blocks: int) -> Callable[[Emit, Value], list[Scales]]:
    """The float16 that scales all blocks of a unit."""

    def unpack(e: Emit, where: Value) -> list[Scales]:
        return unpack_scale(e, where) * n_blocks

    return unpack


def unpack_scale_and_minimum(e: Emit, where: Value) -> list[Scales]:
    minimum = e.load_f16(e.at(where, HALVES))
    return [Scales([e.load_f16(where)], [e.b.fneg(minimum)])]
