"""Packed weights times activations: matrix-vector, small batch and matrix-matrix in one kernel.

Every sum runs over the columns from first to last in one float32 accumulator (per block of 32 for
the block formats, whose inner sums are exact integers), whatever the number of tokens: a token's
result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import layout
from kernels.emit import F32X16, I8X64, I32, I32X16, I64, Emit, Value
from kernels.intrinsics import address
from kernels.jit import jitted, kernel
from kernels.layout import BLOCK, GROUP, TILE, Activations, Packed
from kernels.team import claim, region

# Groups a tile works on at once: enough independent sums to hide the latency of an fma, and no
# more than the 32 vector registers hold (two accumulators a group and token).
GROUPS_AT_ONCE = {1: 4, 2: 4, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1}
ROUGH_SHARE = 8  # pieces of work a thread gets, so that a slow core does not hold up the others
SCALE_BYTES = GROUP * 2


class _Pointers:
    """The addresses a tile walks along, as LLVM values."""

    def __init__(self, args: Any) -> None:
        (self.n_steps, self.n_groups, self.quants, self.scales, self.quant_stride,
         self.scale_stride, self.a_quants, self.a_scales, self.a_sums, self.out,
         self.out_stride) = args  # fmt: skip


_TILE_ARGS = 11


def _weights_q4_0(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """(quants of 4 columns x 16 rows, first column): low nibbles hold columns 0-15 of a block."""
    vectors = [e.load(I8X64, e.at(where, 64 * j), 64) for j in range(4)]
    low = [(e.low_nibbles(v), 4 * j) for j, v in enumerate(vectors)]
    return low + [(e.high_nibbles(v), 16 + 4 * j) for j, v in enumerate(vectors)]


def _weights_q8_0(e: Emit, where: Value) -> list[tuple[Value, int]]:
    return [(e.load(I8X64, e.at(where, 64 * j), 64), 4 * j) for j in range(8)]


_BLOCK_WEIGHTS: dict[str, Callable[[Emit, Value], list[tuple[Value, int]]]] = {
    "q4_0": _weights_q4_0,
    "q8_0": _weights_q8_0,
}


def _emit_block_tile(
    e: Emit, fmt: layout.BlockFormat, p: _Pointers, tokens: int, groups: int, first: Value
) -> None:
    """`groups` groups of 16 rows from group `first` on, times a tile of `tokens` tokens."""
    zero = e.constant(F32X16, 0.0)
    acc = [[e.variable(zero) for _ in range(tokens)] for _ in range(groups)]
    shift = e.constant(I32X16, fmt.offset.bit_length() - 1)
    numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
    w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in numbers]
    s_base = [e.b.add(p.scales, e.b.mul(n, p.scale_stride)) for n in numbers]
    with e.loop(p.n_steps) as block:
        a_quants = e.b.add(p.a_quants, e.b.mul(block, e.i64(tokens * BLOCK)))
        a_scales = e.b.add(p.a_scales, e.b.mul(block, e.i64(tokens * 4)))
        a_sums = e.b.add(p.a_sums, e.b.mul(block, e.i64(tokens * 4)))
        start = [
            e.b.shl(e.splat(e.load(I32, e.at(a_sums, 4 * t), 4)), shift) for t in range(tokens)
        ]
        factor = [e.load_splat_f32(e.at(a_scales, 4 * t)) for t in range(tokens)]
        for g in range(groups):
            where = e.b.add(w_base[g], e.b.mul(block, e.i64(fmt.quant_bytes)))
            dots = list(start)
            for weights, column in _BLOCK_WEIGHTS[fmt.name](e, where):
                for t in range(tokens):
                    four = e.load_splat_4x8(e.at(a_quants, BLOCK * t + column))
                    dots[t] = e.dot(dots[t], weights, four)
            scale = e.load_f16(e.b.add(s_base[g], e.b.mul(block, e.i64(SCALE_BYTES))))
            for t in range(tokens):
                scaled = e.b.fmul(e.to_f32(dots[t]), factor[t])
                acc[g][t].set(e.fma(scaled, scale, acc[g][t].get()))
    _store_tile(e, p, acc, numbers)


_FLOAT_LOADS: dict[str, Callable[[Emit, Value], Value]] = {
    "f32": Emit.load_f32,
    "f16": Emit.load_f16,
    "bf16": Emit.load_bf16,
}


def _emit_float_tile(
    e: Emit, fmt: layout.FloatFormat, p: _Pointers, tokens: int, groups: int, first: Value
) -> None:
    zero = e.constant(F32X16, 0.0)
    acc = [[e.variable(zero) for _ in range(tokens)] for _ in range(groups)]
    numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
    w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in numbers]
    with e.loop(p.n_steps) as column:
        step = e.b.mul(column, e.i64(GROUP * fmt.item_bytes))
        activations = e.b.add(p.a_quants, e.b.mul(column, e.i64(tokens * 4)))
        factor = [e.load_splat_f32(e.at(activations, 4 * t)) for t in range(tokens)]
        for g in range(groups):
            weights = _FLOAT_LOADS[fmt.name](e, e.b.add(w_base[g], step))
            for t in range(tokens):
                acc[g][t].set(e.fma(factor[t], weights, acc[g][t].get()))
    _store_tile(e, p, acc, numbers)


def _store_tile(e: Emit, p: _Pointers, acc: list[list[Any]], numbers: list[Value]) -> None:
    for g, number in enumerate(numbers):
        column = e.b.add(p.out, e.b.mul(number, e.i64(GROUP * 4)))
        for t, sums in enumerate(acc[g]):
            row = e.b.add(column, e.b.mul(p.out_stride, e.i64(t)))
            e.store(sums.get(), row, 4)


def _emit_tile_function(
    module: Any, fmt: layout.BlockFormat | layout.FloatFormat, tokens: int
) -> Any:
    """One LLVM function for a tile of `tokens` tokens over a run of groups."""
    name = f"dllama.tile.{fmt.name}.{tokens}"
    found = module.globals.get(name)
    if found:
        return found
    kind = ir.FunctionType(ir.VoidType(), [I64] * _TILE_ARGS)
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    e, p = Emit(builder), _Pointers(function.args)
    emit = _emit_block_tile if isinstance(fmt, layout.BlockFormat) else _emit_float_tile
    at_once = GROUPS_AT_ONCE[tokens]
    size = e.i64(at_once)
    with e.loop(builder.sdiv(p.n_groups, size)) as turn:
        emit(e, fmt, p, tokens, at_once, builder.mul(turn, size))  # type: ignore[arg-type]
    if at_once > 1:
        left = builder.srem(p.n_groups, size)
        with e.loop(left) as turn:
            number = builder.add(builder.sub(p.n_groups, left), turn)
            emit(e, fmt, p, tokens, 1, number)  # type: ignore[arg-type]
    builder.ret_void()
    return function


def _tile(fmt: layout.BlockFormat | layout.FloatFormat) -> Any:
    """An intrinsic tile(tokens, <pointers>) that calls the function for that many tokens."""

    @intrinsic
    def tile(typingctx: Any, tokens: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[1], i) for i in range(_TILE_ARGS)]
            done = builder.append_basic_block("tile.done")
            switch = builder.switch(values[0], done)
            for n in range(1, TILE + 1):
                case = builder.append_basic_block(f"tile.{n}")
                switch.add_case(ir.Constant(I64, n), case)
                builder.position_at_end(case)
                builder.call(_emit_tile_function(builder.module, fmt, n), args)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, _TILE_ARGS)), codegen

    return tile


@jitted
def _chunk_of_groups(n_groups, n_threads, n_tokens):
    """Groups to claim at once: whole register tiles; few for many tokens, whose work is long."""
    if n_tokens > TILE:
        return 4
    share = n_groups // (n_threads * ROUGH_SHARE)
    return max(4, share // 4 * 4)


def _block_matmul(fmt: layout.BlockFormat) -> Any:
    tile, quant_bytes = _tile(fmt), fmt.quant_bytes

    @region
    def body(thread, team, quants, scales, a_quants, a_scales, a_sums, n_tokens, out, column):
        n_groups, n_blocks = quants.shape[0], quants.shape[1] // quant_bytes
        chunk = _chunk_of_groups(n_groups, team[10], n_tokens)
        while True:
            first = claim(team, chunk)
            if first >= n_groups:
                return
            count = min(chunk, n_groups - first)
            w = address(quants) + first * quants.shape[1]
            s = address(scales) + first * scales.shape[1] * 2
            where = address(out) + (column + first * GROUP) * 4
            for start in range(0, n_tokens, TILE):
                tokens = min(TILE, n_tokens - start)
                done = start * n_blocks
                tile(tokens, (n_blocks, count, w, s, quants.shape[1], scales.shape[1] * 2,
                              address(a_quants) + done * BLOCK, address(a_scales) + done * 4,
                              address(a_sums) + done * 4, where + start * out.shape[1] * 4,
                              out.shape[1] * 4))  # fmt: skip

    return body


def _float_matmul(fmt: layout.FloatFormat) -> Any:
    tile, item_bytes = _tile(fmt), fmt.item_bytes

    @region
    def body(thread, team, quants, tiles, n_tokens, out, column):
        n_groups, n_cols = quants.shape[0], quants.shape[1] // (GROUP * item_bytes)
        chunk = _chunk_of_groups(n_groups, team[10], n_tokens)
        while True:
            first = claim(team, chunk)
            if first >= n_groups:
                return
            count = min(chunk, n_groups - first)
            w = address(quants) + first * quants.shape[1]
            where = address(out) + (column + first * GROUP) * 4
            for start in range(0, n_tokens, TILE):
                tokens = min(TILE, n_tokens - start)
                tile(tokens, (n_cols, count, w, 0, quants.shape[1], 0,
                              address(tiles) + start * n_cols * 4, 0, 0,
                              where + start * out.shape[1] * 4, out.shape[1] * 4))  # fmt: skip

    return body


# One entry a format, at the top level of the module: numba keeps no function in its cache that
# closes over another.
_q4_0 = _block_matmul(layout.Q4_0)
_q8_0 = _block_matmul(layout.Q8_0)
_f32 = _float_matmul(layout.F32)
_f16 = _float_matmul(layout.F16)
_bf16 = _float_matmul(layout.BF16)


@kernel
def multiply_q4_0(team, args):
    _q4_0(team, args)


@kernel
def multiply_q8_0(team, args):
    _q8_0(team, args)


@kernel
def multiply_f32(team, args):
    _f32(team, args)


@kernel
def multiply_f16(team, args):
    _f16(team, args)


@kernel
def multiply_bf16(team, args):
    _bf16(team, args)


_BLOCK_KERNELS = {"q4_0": multiply_q4_0, "q8_0": multiply_q8_0}
_FLOAT_KERNELS = {"f32": multiply_f32, "f16": multiply_f16, "bf16": multiply_bf16}


def matmul(
    team: np.ndarray, w: Packed, a: Activations, n_tokens: int, out: np.ndarray, column: int = 0
) -> None:
    """out[:n_tokens, column : column + w.rows] = activations @ weights.T.

    `out` (T, width) float32 must be wide enough for whole groups of 16 rows from `column` on: the
    columns after w.rows are overwritten with zeros.
    """
    if w.format in _BLOCK_KERNELS:
        inputs = (a.quants, a.scales, a.sums)
        args = (team, w.quants, w.scales, *inputs, n_tokens, out, column)
        _BLOCK_KERNELS[w.format](team, args)
    else:
        _FLOAT_KERNELS[w.format](team, (team, w.quants, a.tiles, n_tokens, out, column))
