"""Adds up what the experts of a row have left: exact sums, as integers, in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from kernels.addresses import address_of
from kernels.emit.emitter import Emit, Variable
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, kernel
from kernels.emit.later import types
from kernels.emit.vectors import F32, F32X16, I8, I32, I32X16, I64, Value
from kernels.experts.routing import Routes
from kernels.experts.slots import NO_BIASES
from kernels.matmul.sums import (
    F64X16,
    I64X16,
    QUANTUM,
    ROUNDER,
    ROUNDER_BITS,
    VALUE_BITS,
    FixedSums,
    Kind,
)
from kernels.program import launch
from kernels.team import claim, region
from kernels.weights.layout import GROUP

NO_NUMBER = -(1 << 63)
_MASK = ir.VectorType(ir.IntType(1), GROUP)


def _emit_group(
    e: Emit, slots: Value, n_slots: Value, sums: Any, biases: Any, group: Value
) -> tuple[Value, Value]:
    """Emits the sum of one group of 16 columns over the slots, with the weighted biases of their
    experts: (<16 x i64>, which is none)."""
    low, to_high, wide, n_groups = sums
    total = e.variable(ir.Constant(I64X16, [0] * GROUP))
    is_none = e.variable(ir.Constant(_MASK, [0] * GROUP))
    _emit_biases(e, biases, group, total, is_none)
    with e.loop(n_slots) as i:
        slot = e.b.sext(e.load(I32, e.b.add(slots, e.b.mul(i, e.i64(4))), 4), I64)
        number = e.b.add(e.b.mul(slot, n_groups), group)
        at = e.b.add(low, e.b.mul(number, e.i64(4 * GROUP)))
        value = e.b.sext(e.load(I32X16, at), I64X16)
        total.set(e.b.add(total.get(), value))
        is_wide = e.b.icmp_signed("!=", e.load(I8, e.b.add(wide, number)), ir.Constant(I8, 0))
        with e.b.if_then(is_wide, likely=False):
            high = e.load(I32X16, e.b.add(at, to_high))
            none = e.b.icmp_signed("==", high, e.constant(I32X16, -(1 << 31)))
            is_none.set(e.b.or_(is_none.get(), none))
            # In place of the sign of the lower half.
            sign = e.b.sext(e.b.ashr(e.b.trunc(value, I32X16), e.constant(I32X16, 31)), I64X16)
            upper = e.b.sub(e.b.sext(high, I64X16), sign)
            thirty_two = ir.Constant(I64X16, [32] * GROUP)
            total.set(e.b.add(total.get(), e.b.shl(upper, thirty_two)))
    return total.get(), is_none.get()


def _emit_biases(e: Emit, biases: Any, group: Value, total: Variable, is_none: Variable) -> None:
    """Emits the adding of a group of each weighted bias, rounded to multiples of QUANTUM as the
    sums of products are."""
    first, stride, chosen, chances, count = biases
    with e.loop(count) as i:
        expert = e.b.sext(e.load(I32, e.b.add(chosen, e.b.mul(i, e.i64(4))), 4), I64)
        chance = e.splat(e.load(F32, e.b.add(chances, e.b.mul(i, e.i64(4))), 4))
        row = e.b.add(first, e.b.mul(expert, stride))
        bias = e.load(F32X16, e.b.add(row, e.b.mul(group, e.i64(4 * GROUP))), 4)
        weighted = e.b.fpext(e.b.fmul(chance, bias), F64X16)
        bits = e.b.bitcast(e.b.fadd(weighted, ir.Constant(F64X16, [ROUNDER] * GROUP)), I64X16)
        value = e.b.sub(bits, ir.Constant(I64X16, [ROUNDER_BITS] * GROUP))
        half = ir.Constant(I64X16, [1 << (VALUE_BITS - 1)] * GROUP)
        end = ir.Constant(I64X16, [1 << VALUE_BITS] * GROUP)
        is_large = e.b.icmp_unsigned(">=", e.b.add(value, half), end)
        is_none.set(e.b.or_(is_none.get(), is_large))
        total.set(e.b.add(total.get(), value))


def _emit_fixed(e: Emit, value: Value, out: Value, to_high: Value, mark: Value) -> None:
    low = e.b.trunc(value, I32X16)
    e.store(low, out, 4)
    differs = e.b.icmp_signed("!=", e.b.sext(low, I64X16), value)
    is_wide = e.b.icmp_unsigned(
        "!=", e.b.bitcast(differs, ir.IntType(GROUP)), ir.Constant(ir.IntType(GROUP), 0)
    )
    e.store(e.b.zext(is_wide, I8), mark)
    with e.b.if_then(is_wide, likely=False):
        high = e.b.trunc(e.b.ashr(value, ir.Constant(I64X16, [32] * GROUP)), I32X16)
        e.store(high, e.b.add(out, to_high), 4)


@intrinsic
def _add_row(typingctx: Any, slots: Any, n_slots: Any, sums: Any, out: Any, biases: Any) -> Any:
    """Adds up a row's slots: `slots` is the address of their int32 numbers, sums = (address of the
    low halves, bytes from there to the high ones, address of the marks, groups), out = (kind,
    address, bytes to the high halves, address of the marks), biases = (address, bytes from one
    expert's to the next, addresses of the row's experts and of their weights, how many)."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        e = Emit(builder)
        slots, n_slots, packed, into, given = values
        sums = [builder.extract_value(packed, i) for i in range(4)]
        biases = [builder.extract_value(given, i) for i in range(5)]
        kind, out, to_high, marks = (builder.extract_value(into, i) for i in range(4))
        with e.loop(sums[3]) as group:
            value, is_none = _emit_group(e, slots, n_slots, sums, biases, group)
            at = builder.add(out, builder.mul(group, e.i64(4 * GROUP)))
            is_fixed = builder.icmp_signed("==", kind, e.i64(int(Kind.FIXED)))
            with builder.if_else(is_fixed) as (fixed, rounded):
                with fixed:
                    none = ir.Constant(I64X16, [NO_NUMBER] * GROUP)
                    whole = builder.select(is_none, none, value)
                    _emit_fixed(e, whole, at, to_high, builder.add(marks, group))
                with rounded:
                    scaled = builder.fmul(
                        builder.sitofp(value, F32X16), e.constant(F32X16, QUANTUM)
                    )
                    none = e.constant(F32X16, float("nan"))
                    e.store(builder.select(is_none, none, scaled), at, 4)
        return context.get_dummy_value()

    four, five = types.UniTuple(types.int64, 4), types.UniTuple(types.int64, 5)
    return types.void(types.int64, types.int64, four, four, five), codegen


@region
def _add_rows(thread, team, slots, n_rows, sums, out, weighted):
    low, to_high, wide = sums
    biases, chosen, chances = weighted
    n_biased = chosen.shape[1] if biases.shape[0] > 0 else 0
    values, kind, out_to_high, marks, mark_stride = out
    while True:
        t = claim(team, 1)
        if t >= n_rows:
            return
        _add_row(
            address(slots) + t * slots.shape[1] * 4,
            slots.shape[1],
            (address(low), to_high, address(wide), np.int64(wide.shape[1])),
            (kind, address(values) + t * values.shape[1] * 4, out_to_high, marks + t * mark_stride),
            (
                address(biases), np.int64(biases.shape[1] * 4),
                address(chosen) + t * chosen.shape[1] * 4,
                address(chances) + t * chances.shape[1] * 4, np.int64(n_biased),
            ),
        )  # fmt: skip


@kernel
def _add(team, slots, n_rows, sums, out, weighted):
    _add_rows(team, (team, slots, n_rows, sums, out, weighted))


def add_slots(
    team: np.ndarray, routes: Routes, n_rows: int, sums: FixedSums, out: np.ndarray | FixedSums,
    biases: np.ndarray = NO_BIASES,
) -> None:  # fmt: skip
    """out[t] = the sum of sums[s] over the slots s = routes.slots[t], for n_rows rows: sums (S,
    width), out (T, width), where it is float32 rounded once. Of `biases` (E, width) float32 those
    of the row's experts are added, times their weights; there may be none."""
    _launch(team, routes.slots, n_rows, sums, out, (biases, routes.chosen, routes.chances))


_NO_EXPERTS, _NO_CHANCES = np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32)


def add_parts(
    team: np.ndarray, slots: np.ndarray, n_rows: int, sums: FixedSums, out: np.ndarray | FixedSums
) -> None:
    """out[t] = the sum of sums[s] over s = slots[t], for n_rows rows: slots (T, n) int32, sums
    (S, width), out (T, width), where it is float32 rounded once."""
    _launch(team, slots, n_rows, sums, out, (NO_BIASES, _NO_EXPERTS, _NO_CHANCES))


def _launch(
    team: np.ndarray, slots: np.ndarray, n_rows: int, sums: FixedSums, out: np.ndarray | FixedSums,
    weighted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:  # fmt: skip
    parts = (sums.low, address_of(sums.high) - address_of(sums.low), sums.wide)
    if isinstance(out, FixedSums):
        to_high = address_of(out.high) - address_of(out.low)
        marks, stride = address_of(out.wide), out.wide.shape[1]
        into = (out.low.view(np.float32), int(Kind.FIXED), to_high, marks, stride)
    else:
        into = (out, int(Kind.ROUNDED), 0, 0, 0)
    launch(_add, team, slots, n_rows, parts, into, weighted)
