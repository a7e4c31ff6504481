"""Adds up the exact sums of several ranks (kernels/matmul/sums.py): as integers, in any order.

A rank's sums mostly fit 32 bits each. The groups of 16 that do not come with the upper halves of
their sums, as records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

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


@intrinsic
def _add_vectors(typingctx: Any, lows: Any, n_lows: Any, n_vectors: Any, out: Any) -> Any:
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
def _add_lows(lows, out):
    _add_vectors(address(lows), lows.size, out.size // 16, address(out))


def wide_groups(sums: FixedSums, rows: slice) -> np.ndarray:
    """Returns the records (n,) WIDE of the groups in these rows, which are counted from 0 there."""
    found, groups = np.nonzero(sums.wide[rows])
    records = np.empty(len(found), WIDE)
    if len(found):
        records["row"], records["group"] = found, groups
        high = sums.high[rows]
        records["high"] = high.reshape(len(high), -1, GROUP)[found, groups]
    return records


def add_fixed(lows: Sequence[np.ndarray], wides: Sequence[np.ndarray], out: np.ndarray) -> None:
    """Writes the sums of all ranks, rounded once, to out (T, width) float32.

    `lows` are (T, width) int32 each, `wides` the records of `wide_groups`, with rows and groups
    inside of out. What is no number in one of them is none in the sum.
    """
    where = np.array([low.ctypes.data for low in lows], np.int64)
    _add_lows(where, out.reshape(-1))
    if any(len(wide) for wide in wides):
        _add_wide(lows, wides, out)


def _add_wide(lows: Sequence[np.ndarray], wides: Sequence[np.ndarray], out: np.ndarray) -> None:
    """Adds up the groups that are wide in any rank once more."""
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
