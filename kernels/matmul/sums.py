"""Exact sums over columns: the same bits wherever the columns are cut.

The columns of a matrix fall into units of a fixed size. Inside of a unit products are added in
float32, first to last. A unit's sum is then rounded to a multiple of QUANTUM and added up in 64-bit
integers. Integer addition is associative, so neither a cut between two units nor the order of the
parts changes a bit. (Compare the "reproducible summation" of Demmel and Nguyen, 2013: the same
idea with quanta that follow the data.)

Rounding is one addition: of a float64 so large that its last bit is QUANTUM. Its bits are added
up as they are; the constant's own bits are taken off at the end. A sum that does not fit 47 bits,
or that was no number, is told from others by what it does to the upper 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from kernels.addresses import address_of
from kernels.arrays import aligned
from kernels.emit.emitter import Emit, Variable
from kernels.emit.vectors import F32X16, I8, I32X16, I64, Value
from kernels.weights.layout import GROUP

QUANTUM = 2.0**-24
"""Half the last bit of a float32 next to 1. A sum below 128 fits 32 bits."""

ROUNDER = 1.5 * 2.0**28
"""float64 numbers next to it are multiples of QUANTUM; half its size may be added either way."""

ROUNDER_BITS = 0x41B8 << 48
VALUE_BITS = 48

NO_UNIT = 1 << 62
"""Columns of a unit that never ends."""

F64X16, I64X16 = ir.VectorType(ir.DoubleType(), 16), ir.VectorType(I64, 16)


class Kind(IntEnum):
    """What a matmul writes: float32 sums over all columns, exact sums rounded to float32, or exact
    sums as multiples of QUANTUM."""

    PLAIN = 0
    ROUNDED = 1
    FIXED = 2


class FixedSums(NamedTuple):
    """Exact sums (T, width) as multiples of QUANTUM, 32 bits each.

    Where `wide` is not zero for a group of 16 columns, `high` holds the upper 32 bits of their
    sums; -2^31 there stands for what is no number or too large.
    """

    low: np.ndarray  # (T, width) int32
    high: np.ndarray  # (T, width) int32
    wide: np.ndarray  # (T, width / 16) uint8

    @classmethod
    def zeros(cls, n_rows: int, width: int) -> FixedSums:
        """Returns sums of zero; the width is whole groups."""
        low, high = (aligned((n_rows, width), np.int32) for _ in range(2))
        return cls(low, high, aligned((n_rows, width // GROUP), np.uint8))

    def rows(self, rows: slice) -> FixedSums:
        """Returns some of the rows, in the same memory."""
        return FixedSums(*(plane[rows] for plane in self))


class SumArgs(NamedTuple):
    """How a tile's sums are added up and where they go beside `out`, int64 each."""

    unit: Any  # steps (blocks, or vectors of plain numbers) of a unit
    kind: Any
    high: Any  # from a sum in `out` to its upper half, bytes
    wide: Any  # the mark of the first token's first group
    wide_stride: Any  # from token to token

    @classmethod
    def of(cls, out: np.ndarray | FixedSums, column: int, unit: int, per_step: int) -> SumArgs:
        """The arguments of a matmul that writes `out` from `column` on, in steps of `per_step`
        columns."""
        steps = -(-unit // per_step)
        if isinstance(out, FixedSums):
            assert column % GROUP == 0, "marks are of whole groups"
            high = address_of(out.high) - address_of(out.low)
            wide = address_of(out.wide) + column // GROUP
            return cls(steps, int(Kind.FIXED), high, wide, out.wide.shape[1])
        kind = Kind.PLAIN if unit == NO_UNIT else Kind.ROUNDED
        return cls(steps, int(kind), 0, 0, 0)


class TileSums:
    """Emits the sums of a tile: float accumulators of `tokens` tokens and `groups` groups, their
    exact sums, and their way to memory."""

    def __init__(self, e: Emit, args: SumArgs, tokens: int, groups: int) -> None:
        self.e, self.args = e, args
        zero = e.constant(F32X16, 0.0)
        self.acc = [[e.variable(zero) for _ in range(tokens)] for _ in range(groups)]
        self._left = e.variable(args.unit)  # steps of the unit that are still to come
        self._counts_steps = False
        self._n_units = e.variable(e.i64(0))
        self._fixed = e.stack(I64X16, groups * tokens)
        self._is_exact = e.b.icmp_signed("!=", args.kind, e.i64(int(Kind.PLAIN)))
        with e.b.if_then(self._is_exact):
            for at in self._places():
                e.store(ir.Constant(I64X16, [0] * 16), at, 64)

    @contextmanager
    def steps(self, count: Value) -> Iterator[Value]:
        """Runs the body `count` times, a unit after the other; yields the index, an i64."""
        e, done = self.e, self.e.variable(self.e.i64(0))
        head, body, end = (
            e.b.function.append_basic_block(f"units.{name}") for name in ("head", "body", "end")
        )
        e.b.branch(head)
        e.b.position_at_end(head)
        first = done.get()
        left = e.b.sub(count, first)
        e.b.cbranch(e.b.icmp_signed(">", left, e.i64(0)), body, end)
        e.b.position_at_end(body)
        unit = self._left.get()
        n_steps = e.b.select(e.b.icmp_signed("<", unit, left), unit, left)
        with e.loop(n_steps) as step:
            yield e.b.add(first, step)
        with e.b.if_then(self._is_exact, likely=False):
            self._end_unit()
        self._left.set(self.args.unit)
        done.set(e.b.add(first, n_steps))
        e.b.branch(head)
        e.b.position_at_end(end)

    def end_step(self) -> None:
        """Emits what follows the products of a step that runs in another loop than `steps`: the end
        of a unit, where it is one."""
        e, self._counts_steps = self.e, True
        left = e.b.sub(self._left.get(), e.i64(1))
        self._left.set(left)
        with e.b.if_then(e.b.icmp_signed("==", left, e.i64(0)), likely=False):
            self._left.set(self.args.unit)
            self._end_unit()

    def store(self, out: Value, out_stride: Value, numbers: list[Value]) -> None:
        """Emits the writing of the sums of the groups with these numbers, counted from address
        `out` on, to their 16 columns of the rows of the tile."""
        e = self.e
        columns = [e.b.add(out, e.b.mul(number, e.i64(GROUP * 4))) for number in numbers]
        with e.b.if_else(self._is_exact, likely=False) as (exact, plain):
            with exact:
                if self._counts_steps:
                    self._end_unit()  # the last one may be short
                is_fixed = e.b.icmp_signed("==", self.args.kind, e.i64(int(Kind.FIXED)))
                with e.b.if_else(is_fixed) as (fixed, rounded):
                    with fixed:
                        self._store(columns, out_stride, self._store_fixed, numbers)
                    with rounded:
                        self._store(columns, out_stride, self._store_rounded, numbers)
            with plain:
                for column, sums in zip(columns, self.acc, strict=True):
                    for t, total in enumerate(sums):
                        e.store(total.get(), self._row(column, out_stride, t), 4)

    def _places(self) -> list[Value]:
        n = sum(len(of_group) for of_group in self.acc)
        return [self.e.at(self._fixed, 128 * i) for i in range(n)]

    def _flat(self) -> list[Variable]:
        return [total for of_group in self.acc for total in of_group]

    def _end_unit(self) -> None:
        """Adds the float sums to the exact ones, and begins new ones."""
        e = self.e
        self._n_units.set(e.b.add(self._n_units.get(), e.i64(1)))
        rounder = ir.Constant(F64X16, [ROUNDER] * 16)
        for total, at in zip(self._flat(), self._places(), strict=True):
            rounded = e.b.fadd(e.b.fpext(total.get(), F64X16), rounder)
            so_far = e.load(I64X16, at, 64)
            e.store(e.b.add(so_far, e.b.bitcast(rounded, I64X16)), at, 64)
            total.set(e.constant(F32X16, 0.0))

    def _row(self, column: Value, stride: Value, t: int) -> Value:
        return self.e.b.add(column, self.e.b.mul(stride, self.e.i64(t)))

    def _store(
        self, columns: list[Value], out_stride: Value, store: Any, numbers: list[Value]
    ) -> None:
        e, tokens = self.e, len(self.acc[0])
        taken_off = e.splat(e.b.mul(self._n_units.get(), e.i64(ROUNDER_BITS)))
        half = ir.Constant(I64X16, [1 << (VALUE_BITS - 1)] * 16)
        end = ir.Constant(I64X16, [1 << VALUE_BITS] * 16)
        for i, at in enumerate(self._places()):
            g, t = divmod(i, tokens)
            value = e.b.sub(e.load(I64X16, at, 64), taken_off)
            is_sound = e.b.icmp_unsigned("<", e.b.add(value, half), end)
            store(value, is_sound, self._row(columns[g], out_stride, t), numbers[g], t)

    def _store_rounded(self, value: Value, is_sound: Value, at: Value, _: Value, t: int) -> None:
        e = self.e
        scaled = e.b.fmul(e.b.sitofp(value, F32X16), e.constant(F32X16, QUANTUM))
        nan = e.constant(F32X16, float("nan"))
        e.store(e.b.select(is_sound, scaled, nan), at, 4)

    def _store_fixed(self, value: Value, is_sound: Value, at: Value, group: Value, t: int) -> None:
        e = self.e
        value = e.b.select(is_sound, value, ir.Constant(I64X16, [-(1 << 63)] * 16))
        low = e.b.trunc(value, I32X16)
        e.store(low, at, 4)
        differs = e.b.icmp_signed("!=", e.b.sext(low, I64X16), value)
        mask = e.b.bitcast(differs, ir.IntType(16))
        is_wide = e.b.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(16), 0))
        mark = e.b.add(self.args.wide, e.b.mul(self.args.wide_stride, e.i64(t)))
        e.store(e.b.zext(is_wide, I8), e.b.add(mark, group), 1)
        with e.b.if_then(is_wide, likely=False):
            high = e.b.trunc(e.b.ashr(value, ir.Constant(I64X16, [32] * 16)), I32X16)
            e.store(high, e.b.add(at, self.args.high), 4)
