"""Norms, activation functions and the quantization of a matmul's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from kernels.arrays import aligned
from kernels.emit.emitter import Emit
from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import address, f32_bits
from kernels.emit.jit import intrinsic, jitted, kernel
from kernels.emit.later import types
from kernels.emit.vectors import F32, F32X16, I8, I32, I32X16
from kernels.matmul.tiles import (
    MANY_FROM,
    n_tiles,
    tile_bounds,
    tile_number,
    widest_tile,
)
from kernels.program import launch
from kernels.squares import sum_of_squares
from kernels.team import claim, region
from kernels.weights.layout import BLOCK, Activations, Needs


def activations(max_tokens: int, cols: int) -> Activations:
    """Returns buffers for the input of a matmul with `cols` columns."""
    blocks = max_tokens * (cols // BLOCK)
    return Activations(
        rows=aligned((max_tokens, cols), np.float32),
        tiles=aligned(max_tokens * cols, np.float32),
        quants=aligned(blocks * BLOCK, np.int8),
        scales=aligned(blocks, np.float32),
        sums=aligned(blocks * 3, np.int32),
        weighted=aligned(blocks * 3, np.float32),
        pairs=aligned(max_tokens * -(-cols // 2), np.int32),
    )


@intrinsic
def _quantize_block(
    typingctx: Any, x: Any, quants: Any, scale: Any, sums: Any, weighted: Any, flip: Any
) -> Any:
    """Quantizes 32 floats at address x to int8 with one scale: q = rint(x * 127 / max|x|).

    Also writes the scale, minus the sums of the quants (first 16, last 16, all), and the same
    times the scale. The bits of `flip` are inverted in the stored quants.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        x, quants, scale, sums, weighted, flip = args
        flip = e.splat(builder.trunc(flip, I8))
        v = [e.load(F32X16, e.at(x, 64 * i), 4) for i in range(2)]
        fabs = e.declare("llvm.fabs.v16f32", F32X16, [F32X16])
        larger = e.declare("llvm.maxnum.v16f32", F32X16, [F32X16, F32X16])
        across = e.declare("llvm.vector.reduce.fmax.v16f32", F32, [F32X16])
        rint = e.declare("llvm.rint.v16f32", F32X16, [F32X16])
        top = builder.call(across, [builder.call(larger, [builder.call(fabs, [i]) for i in v])])
        inverse = builder.fdiv(ir.Constant(F32, 127.0), top)
        # A block of zeros gets the scale zero, and zero times zero as its quants.
        is_zero = builder.fcmp_ordered("==", top, ir.Constant(F32, 0.0))
        inverse = e.splat(builder.select(is_zero, ir.Constant(F32, 0.0), inverse))
        whole = [builder.fptosi(builder.call(rint, [builder.fmul(i, inverse)]), I32X16) for i in v]
        for i, q in enumerate(whole):
            q = builder.xor(builder.trunc(q, ir.VectorType(I8, 16)), flip)
            e.store(q, e.at(quants, 16 * i))
        add = e.declare("llvm.vector.reduce.add.v16i32", I32, [I32X16])
        step = builder.fdiv(top, ir.Constant(F32, 127.0))
        e.store(step, scale, 4)
        parts = [builder.neg(builder.call(add, [q])) for q in whole]
        for i, part in enumerate([*parts, builder.add(*parts)]):
            e.store(part, e.at(sums, 4 * i), 4)
            e.store(builder.fmul(builder.sitofp(part, F32), step), e.at(weighted, 4 * i), 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@jitted
def _bf16_bits(x):
    """The 16 bits of the bfloat16 nearest to a float32, ties to even."""
    bits = np.int64(f32_bits(x)) & 0xFFFFFFFF
    if x != x:
        return np.int64(0x7FC0)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


@jitted
def _place(token, n_tokens, is_block):
    """The first token of a token's tile, the token's place in the tile, and the tile's width."""
    widest = widest_tile(n_tokens, is_block)
    start, end = tile_bounds(tile_number(token, n_tokens, widest), n_tokens, widest)
    return start, token - start, end - start


@jitted
def lay_out(a, row, token, n_tokens, needs):
    """Writes a row into the tiles that the kernels read, as row `token` of n_tokens."""
    _, tiles, quants, scales, sums, weighted, pairs = a
    as_quants, as_tiles, as_pairs = needs
    n_cols = row.size
    if as_quants:
        flip = 128 if n_tokens >= MANY_FROM else 0
        tile, lane, width = _place(token, n_tokens, True)
        n_blocks = n_cols // BLOCK
        for block in range(n_blocks):
            slot = tile * n_blocks + block * width + lane
            _quantize_block(
                address(row) + block * BLOCK * 4,
                address(quants) + slot * BLOCK,
                address(scales) + slot * 4,
                address(sums) + slot * 12,
                address(weighted) + slot * 12,
                flip,
            )
    if as_tiles or as_pairs:
        tile, lane, width = _place(token, n_tokens, False)
    if as_tiles:
        for col in range(n_cols):
            tiles[tile * n_cols + col * width + lane] = row[col]
    if as_pairs:
        n_pairs = (n_cols + 1) // 2
        for pair in range(n_pairs):
            word = _bf16_bits(row[2 * pair])
            if 2 * pair + 1 < n_cols:
                word |= _bf16_bits(row[2 * pair + 1]) << 16
            pairs[tile * n_pairs + pair * width + lane] = word


@jitted
def _claim_rows(team, n_tokens, needs):
    """Claims a tile for the calling thread: (first, end) of its rows, both the same once all tiles
    are taken. The rows of a tile share cache lines, so one thread writes them all."""
    widest = widest_tile(n_tokens, needs[0] and not needs[1] and not needs[2])
    number = claim(team, 1)
    if number >= n_tiles(n_tokens, widest):
        return n_tokens, n_tokens
    return tile_bounds(number, n_tokens, widest)


@jitted
def _rms_norm_row(x, weight, epsilon, out):
    """out = weight * x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich, arXiv:1910.07467)."""
    mean = sum_of_squares(x) / np.float32(x.size)
    factor = np.float32(1) / np.sqrt(mean + epsilon)
    for i in range(x.size):
        out[i] = x[i] * factor * weight[i]


@jitted
def _add_row(row, delta, after, epsilon):
    """row += delta, or its norm where there are weights `after` for one."""
    if after.size > 0:
        mean = sum_of_squares(delta) / np.float32(delta.size)
        factor = np.float32(1) / np.sqrt(mean + epsilon)
        for i in range(row.size):
            row[i] += delta[i] * factor * after[i]
    else:
        for i in range(row.size):
            row[i] += delta[i]


@region
def _norm_rows(thread, team, x, delta, after, before, epsilon, a, n_tokens, needs):
    while True:
        first, end = _claim_rows(team, n_tokens, needs)
        for t in range(first, end):
            row = x[t]
            if delta.shape[0] > 0:
                _add_row(row, delta[t, : row.size], after, epsilon)
            if before.size > 0:
                _rms_norm_row(row, before, epsilon, a[0][t])
            else:
                for i in range(row.size):
                    a[0][t, i] = row[i]
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _add_rms_norm(team, x, delta, after, before, epsilon, a, n_tokens, needs):
    _norm_rows(team, (team, x, delta, after, before, epsilon, a, n_tokens, needs))


_NOTHING = np.zeros((0, 0), np.float32)


def add_rms_norm(
    team: np.ndarray, x: np.ndarray, delta: np.ndarray | None, after: np.ndarray,
    before: np.ndarray, epsilon: float, a: Activations, n_tokens: int, needs: Needs,
) -> None:  # fmt: skip
    """x += norm(delta), then a = norm(x), with root-mean-square norms of the weights `after` and
    `before` (dim,) float32; empty weights stand for no norm.

    x and delta are (T, dim) float32; delta may be wider, or None for nothing to add.
    """
    launch(
        _add_rms_norm, team, x, _NOTHING if delta is None else delta, after, before,
        np.float32(epsilon), tuple(a), n_tokens, needs,
    )  # fmt: skip


@kernel
def _clear(x):
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[t, i] = 0


@kernel
def _gather_rows(x, rows, out):
    for i in range(rows.size):
        row = x[rows[i]]
        for j in range(row.size):
            out[i, j] = row[j]


def clear(x: np.ndarray) -> None:
    """Makes an array (T, n) zero."""
    launch(_clear, x)


def gather_rows(x: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """out[:n] = x[rows]: x (T, dim) float32, rows (n,) int32, all below T."""
    launch(_gather_rows, x, rows, out)


@region
def _lay_out_rows(thread, team, a, n_tokens, needs):
    while True:
        first, end = _claim_rows(team, n_tokens, needs)
        for t in range(first, end):
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _prepare(team, a, n_tokens, needs):
    _lay_out_rows(team, (team, a, n_tokens, needs))


def prepare(team: np.ndarray, a: Activations, n_tokens: int, needs: Needs) -> None:
    """Prepares what was written to a.rows as a matmul's input."""
    launch(_prepare, team, tuple(a), n_tokens, needs)


@jitted
def swiglu_row(gate, up, out):
    """out = silu(gate) * up (Shazeer, arXiv:2002.05202)."""
    for i in range(out.size):
        g = gate[i]
        out[i] = g / (np.float32(1) + exp_f32(-g)) * up[i]


@region
def _swiglu_rows(thread, team, gate_up, a, own, n_tokens, needs):
    start, hidden = own
    while True:
        first, end = _claim_rows(team, n_tokens, needs)
        for t in range(first, end):
            out = a[0][t, start : start + hidden]
            swiglu_row(gate_up[t, :hidden], gate_up[t, hidden : 2 * hidden], out)
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _swiglu(team, gate_up, a, own, n_tokens, needs):
    _swiglu_rows(team, (team, gate_up, a, own, n_tokens, needs))


def swiglu(
    team: np.ndarray, gate_up: np.ndarray, a: Activations, n_tokens: int, needs: Needs,
    own: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """a = silu(gate) * up, where gate_up (T, 2 * hidden or wider) holds both side by side.

    `own` = (first, count) are the columns of `a` that gate_up holds, where it does not hold all;
    the others stay as they are.
    """
    own = own or (0, a.rows.shape[1])
    launch(_swiglu, team, gate_up, tuple(a), own, n_tokens, needs)
