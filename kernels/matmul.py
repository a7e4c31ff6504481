"""Packed weights times activations: matrix-vector, small batch and matrix-matrix in one kernel.

Every sum runs over the columns from first to last in one float32 accumulator (per block of 32 for
the block formats, whose inner sums are exact integers), whatever the number of tokens: a token's
result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import expanded, layout
from kernels.block_steps import add_block, add_minima, store_tile
from kernels.emit import Emit, emitted_function
from kernels.intrinsics import address
from kernels.jit import jitted, kernel, named
from kernels.layout import (
    BLOCK,
    GROUP,
    Activations,
    BlockFormat,
    FloatFormat,
    Packed,
)
from kernels.program import launch
from kernels.team import claim, region
from kernels.tiles import (
    FEW,
    HAS_WIDE_REGISTERS,
    MANY_FLOAT,
    MANY_FROM,
    NEAR_BYTES,
    n_tiles,
    tile_bounds,
    widest_tile,
)
from kernels.unpack import Scales, is_signed, quants, scales
from kernels.vectors import F32X16, I32, I32X16, I64, Value

# Groups of plain numbers that a tile works on at once, by its tokens: enough independent sums to
# hide the latency of an fma. Block formats take one: their integer sums begin anew at every block,
# and memory gives more to a single stream (measured: up to twice as much as to four).
FLOAT_GROUPS_AT_ONCE = (
    {n: 4 if n < 6 else 2 for n in range(1, 13)} if HAS_WIDE_REGISTERS else {1: 2}
)
GROUPS_AT_ONCE = 4  # that many tokens see in turn
PREFETCHED_FROM = 3  # tokens of a tile, where a unit of weights is a single block
ROUGH_SHARE = 8  # pieces of work a thread gets, so that a slow core does not hold up the others


class _Pointers:
    """The addresses a tile walks along, as LLVM values."""

    def __init__(self, args: Any) -> None:
        (self.n_steps, self.n_groups, self.quants, self.scales, self.quant_stride,
         self.scale_stride, self.a_quants, self.a_scales, self.a_sums, self.a_weighted, self.out,
         self.out_stride, self.quants_ahead, self.scales_ahead, self.pace) = args  # fmt: skip


_TILE_ARGS = 15


class _BlockTile:
    """Emits `groups` groups of 16 rows from group `first` on, times a tile of `tokens` tokens."""

    def __init__(
        self, e: Emit, fmt: BlockFormat, p: _Pointers, tokens: int, groups: int, first: Value
    ) -> None:
        self.e, self.fmt, self.p, self.tokens, self.groups = e, fmt, p, tokens, groups
        self.numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
        self.w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in self.numbers]
        self.s_base = [e.b.add(p.scales, e.b.mul(n, p.scale_stride)) for n in self.numbers]
        zero = e.constant(F32X16, 0.0)
        self.acc = [[e.variable(zero) for _ in range(tokens)] for _ in range(groups)]

    def emit(self) -> None:
        with self.e.loop(self.p.n_steps) as unit:
            where = self.e.b.mul(unit, self.e.i64(self.fmt.scale_bytes))
            for base in self.s_base:
                self._prefetch(base, where, self.p.scales_ahead, self.fmt.scale_bytes)
            found = [scales(self.e, self.fmt, self.e.b.add(base, where)) for base in self.s_base]
            if self.fmt.unit_blocks == 1:
                self._block(unit, [unit_scales[0] for unit_scales in found])
            else:
                self._blocks(unit, found)
        _store_tile(self.e, self.p, self.acc, self.numbers)

    def _blocks(self, unit: Value, found: list[list[Scales]]) -> None:
        """The blocks of a unit in a loop, their scales by way of the stack: unrolled, the code
        would not fit the instruction cache."""
        e, n, n_factors = self.e, self.fmt.unit_blocks, BLOCK // self.fmt.sub
        width = n_factors * (2 if self.fmt.has_min else 1)
        room = e.stack(F32X16, self.groups * n * width)
        for g, unit_scales in enumerate(found):
            for i, s in enumerate(unit_scales):
                for k, v in enumerate([*s.factors, *s.minima]):
                    e.store(v, e.at(room, 64 * ((g * n + i) * width + k)), 64)
        with e.loop(e.i64(n)) as i:
            at = e.b.add(room, e.b.mul(i, e.i64(64 * width)))
            here = []
            for g in range(self.groups):
                first = 64 * g * n * width
                v = [e.load(F32X16, e.at(at, first + 64 * k), 64) for k in range(width)]
                here.append(Scales(v[:n_factors], v[n_factors:]))
            self._block(e.b.add(e.b.mul(unit, e.i64(n)), i), here)

    def _block(self, block: Value, factors: list[Scales]) -> None:
        """32 columns: integer dot products, then one float step for each token and group."""
        e, p, tokens = self.e, self.p, self.tokens
        a_quants = e.b.add(p.a_quants, e.b.mul(block, e.i64(tokens * BLOCK)))
        a_scales = e.b.add(p.a_scales, e.b.mul(block, e.i64(tokens * 4)))
        sums_at = e.b.mul(block, e.i64(tokens * 12))
        starts = [self._starts(e.b.add(p.a_sums, sums_at), t) for t in range(tokens)]
        weighted = e.b.add(p.a_weighted, sums_at)
        steps = [e.load_splat_f32(e.at(a_scales, 4 * t)) for t in range(tokens)]
        signed = is_signed(e, self.fmt)
        for g in range(self.groups):
            offset = e.b.mul(block, e.i64(self.fmt.quant_bytes))
            self._prefetch(self.w_base[g], offset, p.quants_ahead, self.fmt.quant_bytes)
            where = e.b.add(self.w_base[g], offset)
            dots = [list(s) for s in starts]
            for weights, column in quants(e, self.fmt, where):
                part = column // self.fmt.sub
                for t in range(tokens):
                    four = e.load_splat_4x8(e.at(a_quants, BLOCK * t + column))
                    dots[t][part] = e.dot(dots[t][part], weights, four, is_signed=signed)
            for t in range(tokens):
                add_block(e, self.acc[g][t], dots[t], steps[t], factors[g])
                add_minima(e, self.acc[g][t], t, weighted, factors[g])

    def _prefetch(self, base: Value, offset: Value, ahead: Value, n_bytes: int) -> None:
        """Lines further on, for tiles that compute for so long that the processor's own looking
        ahead does not keep memory busy."""
        if self.tokens < PREFETCHED_FROM and self.fmt.unit_blocks == 1:
            return
        self.e.prefetch(self.e.b.add(self.e.b.add(base, offset), ahead), n_bytes)

    def _starts(self, sums: Value, t: int) -> list[Value]:
        """Where the integer sums of a token begin: minus the offset times the activations."""
        e, n = self.e, BLOCK // self.fmt.sub
        if not self.fmt.offset or is_signed(e, self.fmt):
            return [e.constant(I32X16, 0)] * n
        shift = e.constant(I32X16, self.fmt.offset.bit_length() - 1)
        first = 12 * t + (8 if n == 1 else 0)
        return [
            e.b.shl(e.splat(e.load(I32, e.at(sums, first + 4 * i), 4)), shift) for i in range(n)
        ]


class _FloatSteps(NamedTuple):
    """How a float format's vectors are read, its activations spread, and both multiplied."""

    load: Callable[[Emit, Value], Value]
    spread: Callable[[Emit, Value], Value]
    add: Callable[[Emit, Value, Value, Value], Value]


def _fma(e: Emit, acc: Value, weights: Value, factor: Value) -> Value:
    return e.fma(factor, weights, acc)


_FLOAT_STEPS = {
    "f32": _FloatSteps(Emit.load_f32, Emit.load_splat_f32, _fma),
    "f16": _FloatSteps(Emit.load_f16, Emit.load_splat_f32, _fma),
    "bf16": _FloatSteps(
        lambda e, where: e.load(I32X16, where, 64),
        lambda e, where: e.splat(e.load(I32, where, 4)),
        Emit.dot_bf16,
    ),
}


def _emit_float_tile(
    e: Emit, fmt: FloatFormat, p: _Pointers, tokens: int, groups: int, first: Value
) -> None:
    zero = e.constant(F32X16, 0.0)
    acc = [[e.variable(zero) for _ in range(tokens)] for _ in range(groups)]
    numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
    w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in numbers]
    steps = _FLOAT_STEPS[fmt.name]
    with e.loop(p.n_steps) as vector:
        step = e.b.mul(vector, e.i64(GROUP * fmt.columns * fmt.item_bytes))
        weights = [steps.load(e, e.b.add(base, step)) for base in w_base]
        if tokens >= PREFETCHED_FROM:
            further = e.b.add(e.b.mul(vector, p.pace), p.quants_ahead)
            for base in w_base:
                e.prefetch(e.b.add(base, further))
        activations = e.b.add(p.a_quants, e.b.mul(vector, e.i64(tokens * 4)))
        for t in range(tokens):
            factor = steps.spread(e, e.at(activations, 4 * t))
            for g in range(groups):
                acc[g][t].set(steps.add(e, acc[g][t].get(), weights[g], factor))
    _store_tile(e, p, acc, numbers)


def _store_tile(e: Emit, p: _Pointers, acc: list[list[Any]], numbers: list[Value]) -> None:
    columns = [e.b.add(p.out, e.b.mul(number, e.i64(GROUP * 4))) for number in numbers]
    store_tile(e, acc, columns, p.out_stride)


def _emit_tile(
    e: Emit, fmt: BlockFormat | FloatFormat, p: _Pointers, tokens: int, groups: int, first: Value
) -> None:
    if isinstance(fmt, BlockFormat):
        _BlockTile(e, fmt, p, tokens, groups, first).emit()
    else:
        _emit_float_tile(e, fmt, p, tokens, groups, first)


def _emit_run(fmt: BlockFormat | FloatFormat, tokens: int, e: Emit, args: Any) -> None:
    """A tile of `tokens` tokens over a run of groups."""
    p = _Pointers(args)
    at_once = FLOAT_GROUPS_AT_ONCE.get(tokens, 1) if isinstance(fmt, FloatFormat) else 1
    size = e.i64(at_once)
    with e.loop(e.b.sdiv(p.n_groups, size)) as turn:
        _emit_tile(e, fmt, p, tokens, at_once, e.b.mul(turn, size))
    if at_once > 1:
        left = e.b.srem(p.n_groups, size)
        with e.loop(left) as turn:
            number = e.b.add(e.b.sub(p.n_groups, left), turn)
            _emit_tile(e, fmt, p, tokens, 1, number)


def _tile(fmt: BlockFormat | FloatFormat) -> Any:
    """An intrinsic tile(tokens, <pointers>) that calls the function for that many tokens."""
    widest = max(FEW, MANY_FLOAT) if isinstance(fmt, FloatFormat) and HAS_WIDE_REGISTERS else FEW

    @intrinsic
    def tile(typingctx: Any, tokens: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[1], i) for i in range(_TILE_ARGS)]
            done = builder.append_basic_block("tile.done")
            switch = builder.switch(values[0], done)
            for n in range(1, widest + 1):
                case = builder.append_basic_block(f"tile.{n}")
                switch.add_case(ir.Constant(I64, n), case)
                builder.position_at_end(case)
                name = f"dllama.tile.{fmt.name}.{n}"
                emit = partial(_emit_run, fmt, n)
                builder.call(emitted_function(builder.module, name, _TILE_ARGS, emit), args)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, _TILE_ARGS)), codegen

    return tile


@jitted
def _chunk_of_groups(n_groups, n_threads, n_tokens):
    """Groups to claim at once: whole register tiles; few for many tokens, whose work is long."""
    if n_tokens >= MANY_FROM:
        return GROUPS_AT_ONCE
    share = n_groups // (n_threads * ROUGH_SHARE)
    return max(4, share // 4 * 4)


def _block_matmul(fmt: BlockFormat) -> Any:
    tile, quant_bytes, unit_blocks = _tile(fmt), fmt.quant_bytes, fmt.unit_blocks

    @region
    @named(f"multiply_rows_{fmt.name}")
    def body(thread, team, w, a, n_tokens, out, column):
        quants, scales = w
        a_quants, a_scales, a_sums, a_weighted = a
        n_groups, n_blocks = quants.shape[0], quants.shape[1] // quant_bytes
        chunk = _chunk_of_groups(n_groups, team[10], n_tokens)
        while True:
            first = claim(team, chunk)
            if first >= n_groups:
                return
            count = min(chunk, n_groups - first)
            # All tokens in turn see a few groups, while the next few are fetched.
            size, quants_ahead, scales_ahead = count, NEAR_BYTES, NEAR_BYTES // 8
            if n_tokens > FEW:
                size = GROUPS_AT_ONCE
                quants_ahead, scales_ahead = size * quants.shape[1], size * scales.shape[1]
            for group in range(first, first + count, size):
                n = min(size, first + count - group)
                w_at = address(quants) + group * quants.shape[1]
                s_at = address(scales) + group * scales.shape[1]
                where = address(out) + (column + group * GROUP) * 4
                for number in range(n_tiles(n_tokens, FEW)):
                    start, end = tile_bounds(number, n_tokens, FEW)
                    done = start * n_blocks
                    tile(end - start, (n_blocks // unit_blocks, n, w_at, s_at, quants.shape[1],
                                  scales.shape[1], address(a_quants) + done * BLOCK,
                                  address(a_scales) + done * 4, address(a_sums) + done * 12,
                                  address(a_weighted) + done * 12,
                                  where + start * out.shape[1] * 4, out.shape[1] * 4,
                                  quants_ahead, scales_ahead, 0))  # fmt: skip

    return body


@jitted
def _ahead(number, n_tokens, widest, stride, vector_bytes):
    """How far ahead tile `number` of the tokens fetches float weights, and how many bytes it goes
    on there with each vector. A single tile fetches what it reads soon. Of several that read the
    same groups of `stride` bytes, the first fetches the former half of each of the next groups and
    the second the latter, so that memory has work all the time."""
    if n_tokens <= widest:
        return NEAR_BYTES, vector_bytes
    if number > 1:
        return 0, 0
    return GROUPS_AT_ONCE * stride + number * (stride // 2), vector_bytes // 2


def _float_matmul(fmt: FloatFormat) -> Any:
    tile, vector_bytes = _tile(fmt), GROUP * fmt.columns * fmt.item_bytes

    @region
    @named(f"multiply_rows_{fmt.name}")
    def body(thread, team, quants, tiles, n_tokens, out, column):
        n_groups, n_vectors = quants.shape[0], quants.shape[1] // vector_bytes
        chunk = _chunk_of_groups(n_groups, team[10], n_tokens)
        widest = widest_tile(n_tokens, False)
        while True:
            first = claim(team, chunk)
            if first >= n_groups:
                return
            count = min(chunk, n_groups - first)
            size = GROUPS_AT_ONCE if n_tokens > FEW else count
            for group in range(first, first + count, size):
                n = min(size, first + count - group)
                w = address(quants) + group * quants.shape[1]
                where = address(out) + (column + group * GROUP) * 4
                for number in range(n_tiles(n_tokens, widest)):
                    start, end = tile_bounds(number, n_tokens, widest)
                    ahead, pace = _ahead(number, n_tokens, widest, quants.shape[1], vector_bytes)
                    tile(end - start, (n_vectors, n, w, 0, quants.shape[1], 0,
                                  address(tiles) + start * n_vectors * 4, 0, 0, 0,
                                  where + start * out.shape[1] * 4, out.shape[1] * 4, ahead,
                                  0, pace))  # fmt: skip

    return body


# One entry a format, at the top level of the module: numba keeps no function in its cache that
# closes over another.
_q4_0 = _block_matmul(layout.BLOCK_FORMATS["q4_0"])
_q4_1 = _block_matmul(layout.BLOCK_FORMATS["q4_1"])
_q5_0 = _block_matmul(layout.BLOCK_FORMATS["q5_0"])
_q5_1 = _block_matmul(layout.BLOCK_FORMATS["q5_1"])
_q8_0 = _block_matmul(layout.BLOCK_FORMATS["q8_0"])
_q2_k = _block_matmul(layout.BLOCK_FORMATS["q2_k"])
_q3_k = _block_matmul(layout.BLOCK_FORMATS["q3_k"])
_q4_k = _block_matmul(layout.BLOCK_FORMATS["q4_k"])
_q5_k = _block_matmul(layout.BLOCK_FORMATS["q5_k"])
_q6_k = _block_matmul(layout.BLOCK_FORMATS["q6_k"])
_iq4_nl = _block_matmul(layout.BLOCK_FORMATS["iq4_nl"])
_iq4_xs = _block_matmul(layout.BLOCK_FORMATS["iq4_xs"])
_f32 = _float_matmul(layout.FLOAT_FORMATS["f32"])
_f16 = _float_matmul(layout.FLOAT_FORMATS["f16"])
_bf16 = _float_matmul(layout.FLOAT_FORMATS["bf16"])


@kernel
def multiply_q4_0(team, args):
    _q4_0(team, args)


@kernel
def multiply_q4_1(team, args):
    _q4_1(team, args)


@kernel
def multiply_q5_0(team, args):
    _q5_0(team, args)


@kernel
def multiply_q5_1(team, args):
    _q5_1(team, args)


@kernel
def multiply_q8_0(team, args):
    _q8_0(team, args)


@kernel
def multiply_q2_k(team, args):
    _q2_k(team, args)


@kernel
def multiply_q3_k(team, args):
    _q3_k(team, args)


@kernel
def multiply_q4_k(team, args):
    _q4_k(team, args)


@kernel
def multiply_q5_k(team, args):
    _q5_k(team, args)


@kernel
def multiply_q6_k(team, args):
    _q6_k(team, args)


@kernel
def multiply_iq4_nl(team, args):
    _iq4_nl(team, args)


@kernel
def multiply_iq4_xs(team, args):
    _iq4_xs(team, args)


@kernel
def multiply_f32(team, args):
    _f32(team, args)


@kernel
def multiply_f16(team, args):
    _f16(team, args)


@kernel
def multiply_bf16(team, args):
    _bf16(team, args)


_BLOCK_KERNELS = {
    "q4_0": multiply_q4_0,
    "q4_1": multiply_q4_1,
    "q5_0": multiply_q5_0,
    "q5_1": multiply_q5_1,
    "q8_0": multiply_q8_0,
    "q2_k": multiply_q2_k,
    "q3_k": multiply_q3_k,
    "q4_k": multiply_q4_k,
    "q5_k": multiply_q5_k,
    "q6_k": multiply_q6_k,
    "iq4_nl": multiply_iq4_nl,
    "iq4_xs": multiply_iq4_xs,
}
_FLOAT_KERNELS = {
    "f32": multiply_f32,
    "f16": multiply_f16,
    "bf16": multiply_bf16,
}


def matmul(
    team: np.ndarray, w: Packed, a: Activations, n_tokens: int, out: np.ndarray, column: int = 0
) -> None:
    """out[:n_tokens, column : column + w.rows] = activations @ weights.T.

    `out` (T, width) float32 must be wide enough for whole groups of 16 rows from `column` on: the
    columns after w.rows are overwritten with zeros.
    """
    weights, is_block = (w.quants, w.scales), w.format in _BLOCK_KERNELS
    if is_block and n_tokens >= MANY_FROM:
        inputs = (a.quants, a.scales, a.weighted)
        launch(expanded.KERNELS[w.format], team, (team, weights, inputs, n_tokens, out, column))
    elif is_block:
        few = (a.quants, a.scales, a.sums, a.weighted)
        launch(_BLOCK_KERNELS[w.format], team, (team, weights, few, n_tokens, out, column))
    else:
        numbers = a.pairs if w.format == "bf16" else a.tiles
        launch(_FLOAT_KERNELS[w.format], team, (team, w.quants, numbers, n_tokens, out, column))
