"""Soft caps: cap * tanh(x / cap) in place of x, which keeps scores and logits within the cap
(Gemma 2, arXiv:2408.00118). The same bits on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.exponential import emit_tanh
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, kernel
from kernels.emit.later import types
from kernels.emit.vectors import F32
from kernels.program import launch
from kernels.team import claim, region

LANES = 16
VECTORS = 64  # that a thread takes at once


@intrinsic
def cap_softly(typingctx: Any, arguments: Any, cap: Any) -> Any:
    """cap_softly((address, n), cap): caps n vectors of 16 floats in place."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        e = Emit(builder)
        first, n = (builder.extract_value(values[0], i) for i in range(2))
        limit = e.splat(values[1])
        inverse = e.splat(builder.fdiv(F32(1.0), values[1]))
        with e.loop(n) as i:
            where = builder.add(first, builder.mul(i, e.i64(4 * LANES)))
            ratio = builder.fmul(e.load_f32(where), inverse)
            e.store(builder.fmul(emit_tanh(e, ratio), limit), where, 4)
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, 2), types.float32), codegen


@region
def _cap_rows(thread, team, x, n_rows, n_vectors, cap):
    n_parts = -(-n_vectors // VECTORS)
    while True:
        item = claim(team, 1)
        if item >= n_rows * n_parts:
            return
        row, first = item // n_parts, item % n_parts * VECTORS
        count = min(VECTORS, n_vectors - first)
        cap_softly((address(x[row]) + first * LANES * 4, count), cap)


@kernel
def _soft_cap(team, x, n_rows, n_vectors, cap):
    _cap_rows(team, (team, x, n_rows, n_vectors, cap))


def soft_cap(team: np.ndarray, x: np.ndarray, n_rows: int, cap: float) -> None:
    """x = cap * tanh(x / cap) for the first rows of x (R, n) float32; n is a multiple of 16."""
    launch(_soft_cap, team, x, n_rows, x.shape[1] // LANES, np.float32(cap))
