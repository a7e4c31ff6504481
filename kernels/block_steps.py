"""The float steps of block weights: what becomes of a block's integer sums. One place for all
kernels, so that all give the same bits."""

from __future__ import annotations

from kernels.emit import Emit, Variable
from kernels.unpack import Scales
from kernels.vectors import Value


def add_block(e: Emit, acc: Variable, dots: list[Value], step: Value, s: Scales) -> None:
    """acc += the sums of a block (one, or one for each 16 columns) times the scales of both
    sides."""
    if len(dots) == 1:
        scaled = e.b.fmul(e.to_f32(dots[0]), step)
        acc.set(e.fma(scaled, s.factors[0], acc.get()))
        return
    both = e.b.fmul(e.to_f32(dots[0]), s.factors[0])
    both = e.fma(e.to_f32(dots[1]), s.factors[1], both)
    acc.set(e.fma(both, step, acc.get()))


def add_minima(e: Emit, acc: Variable, t: int, weighted: Value, s: Scales) -> None:
    """acc += token t's weighted sums of activations times the minima of a block."""
    first = 12 * t + (8 if len(s.minima) == 1 else 0)
    for i, minimum in enumerate(s.minima):
        weight = e.load_splat_f32(e.at(weighted, first + 4 * i))
        acc.set(e.fma(weight, minimum, acc.get()))


def store_tile(e: Emit, acc: list[list[Variable]], columns: list[Value], out_stride: Value) -> None:
    """Each group's sums to its 16 columns of the rows of a tile."""
    for column, sums in zip(columns, acc, strict=True):
        for t, total in enumerate(sums):
            e.store(total.get(), e.b.add(column, e.b.mul(out_stride, e.i64(t))), 4)
