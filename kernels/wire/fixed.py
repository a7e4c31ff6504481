"""Adds up the exact sums of several ranks (kernels/matmul/sums.py): as integers, in any order.

A rank's sums mostly fit 32 bits each. The groups of 16 that do not come with the upper halves of
their sums, as records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from kernels.addresses import address_of
from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, kernel
from kernels.emit.later import types
from kernels.emit.vectors import F32X16, I32X16, I64
from kernels.matmul.sums import F64X16, QUANTUM, FixedSums
from kernels.weights.layout import GROUP

WIDE = np.dtype([("row", "<i4"), ("group", "<i4"), ("high", "<i4", (GROUP,))])
"""A group of sums that need more than 32 bits: where it is, and its upper halves."""

NO_NUMBER = -(1 << 31)
NO_WIDE = np.empty(0, WIDE)
NO_MARKS = np.empty(0, np.uint8)  # of sums that are never wide


@intrinsic
def add_vectors(typingctx: Any, lows: Any, n_lows: Any, n_vectors: Any, out: Any) -> Any:
    """Writes float32(QUANTUM * sum) of n_vectors vectors of 16 int32 to address `out`; `lows` is
    the address of n_lows addresses, int64 each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        lows, n_lows, n_vectors, out = args
        total = e.variable(ir.Constant(F64X16, [0.0] * GROUP))
        with e.loop(n_vectors) as i:
            at = builder.mul(i, e.i64(64))
            total.set(ir.Constant(F64X16, [0.0] * GROUP))
            with e.loop(n_lows) as part:
                low = e.load(I64, builder.add(lows, builder.mul(part, e.i64(8))), 8)
                addend = e.load(I32X16, builder.add(low, at))
                total.set(builder.fadd(total.get(), builder.sitofp(addend, F64X16)))
            scaled = builder.fmul(total.get(), ir.Constant(F64X16, [QUANTUM] * GROUP))
            e.store(builder.fptrunc(scaled, F32X16), builder.add(out, at), 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@kernel
def _add_lows(call):
    add_vectors(address(call) + 24, call[0], call[1], call[2])


class FixedAdder:
    """Adds up the lower halves of the sums of at most `max_ranks` ranks. Its arguments stay in one
    array, since a decoded token makes dozens of these calls."""

    def __init__(self, max_ranks: int) -> None:
        self._call = np.zeros(3 + max_ranks, np.int64)
        self._add = _add_lows.bind(self._call)

    def add(self, lows: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Writes the sums of `lows`, whole groups of int32 of one size each, rounded once, to out
        float32 of the same size. All of them are contiguous."""
        where = [address_of(low) for low in lows]
        into = address_of(out)
        self._call[: 3 + len(where)] = [len(where), out.size // GROUP, into, *where]
        self._add()


def wide_groups(sums: FixedSums, rows: slice) -> np.ndarray:
    """Returns the records (n,) WIDE of the groups in these rows, which are counted from 0 there."""
    marks = sums.wide[rows]
    if b"\x01" not in marks.tobytes():
        return NO_WIDE
    found, groups = np.nonzero(marks)
    records = np.empty(len(found), WIDE)
    records["row"], records["group"] = found, groups
    high = sums.high[rows]
    records["high"] = high.reshape(len(high), -1, GROUP)[found, groups]
    return records


def add_fixed(parts: Sequence[FixedSums], out: np.ndarray) -> None:
    """Writes the sums of all parts, rounded once, to out (T, width) float32."""
    lows = [part.low for part in parts]
    FixedAdder(len(parts)).add(lows, out)
    wides = [wide_groups(part, slice(None)) for part in parts]
    if any(len(wide) for wide in wides):
        add_wide(lows, wides, out)


def add_wide(lows: Sequence[np.ndarray], wides: Sequence[np.ndarray], out: np.ndarray) -> None:
    """Adds up the groups that are wide in any rank once more, after the lower halves.

    `lows` are (T, width) int32 each, `wides` the records of `wide_groups`, with rows and groups
    inside of out (T, width). What is no number in one of them is none in the sum.
    """
    n_groups = out.shape[1] // GROUP
    keys = [wide["row"].astype(np.int64) * n_groups + wide["group"] for wide in wides]
    touched = np.unique(np.concatenate(keys))
    total = np.zeros((len(touched), GROUP), np.int64)
    is_none = np.zeros((len(touched), GROUP), bool)
    for low, wide, key in zip(lows, wides, keys, strict=True):
        mine = low.reshape(-1, GROUP)[touched].astype(np.int64)
        at = np.searchsorted(touched, key)
        high = wide["high"].astype(np.int64)
        mine[at] = (high << 32) | (mine[at] & 0xFFFFFFFF)
        is_none[at] |= high == NO_NUMBER
        total += mine
    values = (total.astype(np.float64) * QUANTUM).astype(np.float32)
    values[is_none] = np.nan
    out.reshape(-1, GROUP)[touched] = values
