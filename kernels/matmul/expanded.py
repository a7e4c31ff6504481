"""Quantized weights times many tokens: a few groups are unpacked to signed bytes, with their
scales, and multiplied with all tokens before the next ones are. The tokens share the cost of
unpacking, and every type runs at the speed of plain bytes. Memory still holds the packed weights.

Activations come as unsigned bytes here (128 is added), as the integer dot product takes one side
unsigned; minus 128 times the sum of the weights, where a dot product begins, makes up for it. Two
groups of weights share each broadcast of activations. Results have the same bits as those of
blocks.py: sums of integers are exact, and the float steps are its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir

from kernels.emit.emitter import Emit, call_one_of, emitted_function
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, named
from kernels.emit.later import types
from kernels.emit.vectors import F32X16, I8X64, I32X16, I64, Value
from kernels.matmul.batches import batch_of, most_rows, n_batches
from kernels.matmul.blocks import add_block, add_minima
from kernels.matmul.sums import SumArgs, TileSums
from kernels.matmul.tiles import MANY_BLOCK, MANY_FROM, NEAR_BYTES, n_tiles, tile_bounds
from kernels.team import SCRATCH_BYTES, claim, region, scratch_of
from kernels.weights.layout import BLOCK, GROUP, BlockType
from kernels.weights.unpack import Scales, quants

VECTOR = 64  # bytes
PAIR = 2  # groups that share broadcasts
CHUNK_BYTES = 1 << 18  # of expanded groups that a thread works on: they stay in its second cache
NARROWEST = -(-MANY_FROM // -(-MANY_FROM // MANY_BLOCK)) - 1  # tile where tokens are cut evenly


def _places(n_subs: int, has_min: bool) -> tuple[int, int, int, int]:
    """The places of an expanded group's starts of dot products, of its factors and its minima, and
    its length: in bytes for each block. The weights come first, 512 bytes a block; each of the
    others is a vector for every run of columns with one scale."""
    weights, plane = BLOCK * GROUP, n_subs * VECTOR
    minima = weights + 2 * plane
    return weights, weights + plane, minima, minima + (plane if has_min else 0)


MAX_COLS = SCRATCH_BYTES // (PAIR * _places(2, True)[3]) * BLOCK
"""Columns of which two groups fit a thread's scratch buffer, whatever their type."""


def _n_subs(fmt: BlockType) -> int:
    return BLOCK // fmt.sub


def _emit_expand(fmt: BlockType, e: Emit, args: Any) -> None:
    """Unpacks one group to a scratch buffer: the n_blocks blocks of its units that are the
    matrix's."""
    n_blocks, first_block, packed, packed_scales, *places = args
    n = e.i64(fmt.unit_blocks)
    end = e.b.add(e.b.add(first_block, n_blocks), e.b.sub(n, e.i64(1)))
    with e.loop(e.b.sdiv(end, n)) as unit:
        found = fmt.unpack_scales(e, e.b.add(packed_scales, e.b.mul(unit, e.i64(fmt.scale_bytes))))
        before = e.b.sub(e.b.mul(unit, n), first_block)
        for i, of_block in enumerate(found):
            block = e.b.add(before, e.i64(i))
            is_own = e.b.icmp_unsigned("<", block, n_blocks)
            with e.b.if_then(is_own) if fmt.unit_blocks > 1 else nullcontext():
                _emit_expand_block(fmt, e, block, of_block, packed, places)


def _emit_expand_block(
    fmt: BlockType, e: Emit, block: Value, of_block: Scales, packed: Value, places: list[Value]
) -> None:
    """Unpacks 32 columns of a group to their places in a scratch buffer."""
    weights, starts, factors, minima = places
    n_subs = _n_subs(fmt)
    plane = e.b.mul(block, e.i64(n_subs * VECTOR))
    for kind, vectors in ((factors, of_block.factors), (minima, of_block.minima)):
        for part, v in enumerate(vectors):
            e.store(v, e.at(e.b.add(kind, plane), part * VECTOR), VECTOR)
    where = e.b.add(packed, e.b.mul(block, e.i64(fmt.quant_bytes)))
    e.prefetch(e.at(where, NEAR_BYTES), fmt.quant_bytes)
    target = e.b.add(weights, e.b.mul(block, e.i64(BLOCK * GROUP)))
    sums = [e.constant(I32X16, 0)] * n_subs
    for v, column in quants(e, fmt, where):
        signed = e.b.sub(v, e.constant(I8X64, fmt.offset)) if fmt.offset else v
        e.store(signed, e.at(target, column * GROUP), VECTOR)
        part = column // fmt.sub
        sums[part] = e.dot(sums[part], e.constant(I8X64, 128), signed)
    for part, total in enumerate(sums):
        e.store(e.b.neg(total), e.at(e.b.add(starts, plane), part * VECTOR), VECTOR)


class _TileArgs(NamedTuple):
    n_blocks: Any
    weights: Any  # of the first group
    starts: Any
    factors: Any
    minima: Any
    stride: Any  # from group to group
    a_quants: Any
    a_scales: Any
    a_weighted: Any
    out: Any
    out_stride: Any
    unit: Any  # from here on SumArgs
    kind: Any
    high: Any
    wide: Any
    wide_stride: Any


def _emit_tile(fmt: BlockType, tokens: int, groups: int, e: Emit, args: Any) -> None:
    p, n_subs = _TileArgs(*args), _n_subs(fmt)
    sums = TileSums(e, SumArgs(*args[-len(SumArgs._fields) :]), tokens, groups)
    acc = sums.acc
    shifts = [e.b.mul(p.stride, e.i64(g)) for g in range(groups)]
    with sums.steps(p.n_blocks) as block:
        a_quants = e.b.add(p.a_quants, e.b.mul(block, e.i64(tokens * BLOCK)))
        a_scales = e.b.add(p.a_scales, e.b.mul(block, e.i64(tokens * 4)))
        a_weighted = e.b.add(p.a_weighted, e.b.mul(block, e.i64(tokens * 12)))
        weights = e.b.mul(block, e.i64(BLOCK * GROUP))
        plane = e.b.mul(block, e.i64(n_subs * VECTOR))

        def vectors(kind: Value, g: int) -> list[Value]:
            at = e.b.add(e.b.add(kind, shifts[g]), plane)
            return [e.load(I32X16, e.at(at, VECTOR * i), VECTOR) for i in range(n_subs)]

        dots = [[vectors(p.starts, g) for _ in range(tokens)] for g in range(groups)]
        for column in range(0, BLOCK, 4):
            four = [
                e.load(I8X64, e.at(e.b.add(e.b.add(p.weights, shift), weights), column * GROUP), 64)
                for shift in shifts
            ]
            for t in range(tokens):
                activations = e.load_splat_4x8(e.at(a_quants, BLOCK * t + column))
                for g in range(groups):
                    so_far, part = dots[g][t], column // fmt.sub
                    so_far[part] = e.dot(so_far[part], activations, four[g])
        as_float = [
            Scales(
                [e.b.bitcast(v, F32X16) for v in vectors(p.factors, g)],
                [e.b.bitcast(v, F32X16) for v in vectors(p.minima, g)] if fmt.has_min else [],
            )
            for g in range(groups)
        ]
        for t in range(tokens):
            step = e.load_splat_f32(e.at(a_scales, 4 * t))
            for g in range(groups):
                add_block(e, acc[g][t], dots[g][t], step, as_float[g])
                add_minima(e, acc[g][t], t, a_weighted, as_float[g])
    sums.store(p.out, p.out_stride, [e.i64(g) for g in range(groups)])


N_EXPAND_ARGS = 8


def _expander(fmt: BlockType) -> Any:
    """An intrinsic expand(n_blocks, first_block, quants, scales, then the four places in a scratch
    buffer)."""

    @intrinsic
    def expand(typingctx: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[0], i) for i in range(N_EXPAND_ARGS)]
            name = f"dllama.expand.{fmt.name}"
            emit = partial(_emit_expand, fmt)
            builder.call(emitted_function(builder.module, name, N_EXPAND_ARGS, emit), args)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, N_EXPAND_ARGS)), codegen

    return expand


def _tile(fmt: BlockType) -> Any:
    """An intrinsic tile(tokens, groups, <_TileArgs>) for MANY_BLOCK tokens or one less, and one
    group or two."""
    n_args = len(_TileArgs._fields)

    @intrinsic
    def tile(typingctx: Any, tokens: Any, groups: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[2], i) for i in range(n_args)]
            case = builder.add(builder.mul(values[0], ir.Constant(I64, PAIR + 1)), values[1])
            functions = [
                (n * (PAIR + 1) + g, emitted_function(
                    builder.module, f"dllama.expanded.{fmt.name}.{n}.{g}", n_args,
                    partial(_emit_tile, fmt, n, g),
                ))
                for n in range(NARROWEST, MANY_BLOCK + 1)
                for g in range(1, PAIR + 1)
            ]  # fmt: skip
            call_one_of(builder, case, functions, args)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.UniTuple(types.int64, n_args)), codegen

    return tile


def expanded_matmul(fmt: BlockType) -> Any:
    """A region that multiplies a matrix of one quant type with many tokens."""
    expand, tile = _expander(fmt), _tile(fmt)
    quant_bytes = fmt.quant_bytes
    to_starts, to_factors, to_minima, stride_of_block = _places(_n_subs(fmt), fmt.has_min)

    @region
    @named(f"multiply_expanded_{fmt.name}")
    def body(thread, team, w, a, n_tokens, out, column, sums, batches):
        unit, kind, high, wide, wide_stride = sums
        packed, packed_scales, first_block = w
        a_quants, a_scales, a_weighted = a
        table, n_groups, matrix_stride = batches
        n_blocks = packed.shape[1] // quant_bytes
        stride, buffer = n_blocks * stride_of_block, scratch_of(team, thread)
        chunk = max(1, CHUNK_BYTES // (PAIR * stride)) * PAIR
        n_chunks = -(-n_groups // chunk)
        n_pieces = n_chunks * n_batches(table)
        if most_rows(table, n_tokens) < MANY_FROM:
            return
        while True:
            piece = claim(team, 1)
            if piece >= n_pieces:
                return
            matrix, first_row, n_rows = batch_of(table, piece // n_chunks, n_tokens)
            if n_rows < MANY_FROM:
                continue
            first = piece % n_chunks * chunk
            count = min(chunk, n_groups - first)
            for g in range(count):
                at, group = buffer + g * stride, matrix * matrix_stride + first + g
                expand((n_blocks, first_block, address(packed) + group * packed.shape[1],
                        address(packed_scales) + group * packed_scales.shape[1],
                        at, at + n_blocks * to_starts, at + n_blocks * to_factors,
                        at + n_blocks * to_minima))  # fmt: skip
            for number in range(n_tiles(n_rows, MANY_BLOCK)):
                start, end = tile_bounds(number, n_rows, MANY_BLOCK)
                start, end = first_row + start, first_row + end
                done = start * n_blocks
                for g in range(0, count, PAIR):
                    at = buffer + g * stride
                    where = address(out) + (column + (first + g) * GROUP) * 4
                    tile(end - start, min(PAIR, count - g),
                         (n_blocks, at, at + n_blocks * to_starts, at + n_blocks * to_factors,
                          at + n_blocks * to_minima, stride, address(a_quants) + done * BLOCK,
                          address(a_scales) + done * 4, address(a_weighted) + done * 12,
                          where + start * out.shape[1] * 4, out.shape[1] * 4, unit, kind, high,
                          wide + first + g + start * wide_stride,
                          wide_stride))  # fmt: skip

    return body
