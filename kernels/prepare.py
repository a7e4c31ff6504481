"""Rows of numbers laid out as a matmul's input, and how they travel between ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from kernels.arrays import aligned
from kernels.cpu import has_bf16_dot
from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import address, f32_bits, load_i64, store_i64
from kernels.emit.jit import intrinsic, jitted, kernel
from kernels.emit.later import types
from kernels.emit.vectors import F32, F32X16, I8, I32, I32X16, Value
from kernels.matmul.tiles import MANY_FROM, n_tiles, tile_bounds, tile_number, widest_tile
from kernels.program import launch
from kernels.team import claim, region
from kernels.weights.layout import BLOCK, Activations, Needs

I8X16 = ir.VectorType(I8, 16)
IN_PAIRS = has_bf16_dot()
_FLIPPED = -0x7F7F7F7F7F7F7F80  # the upper bits of eight bytes


@jitted
def bf16_words(n_cols):
    """The words of 4 bytes of a token's activations for bfloat16 weights."""
    n_pairs = (n_cols + 1) // 2
    return n_pairs if IN_PAIRS else 2 * n_pairs


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
        bf16=aligned(max_tokens * bf16_words(cols), np.int32),
    )


def _store_block(
    e: Emit, whole: list[Value], step: Value, quants: Value, scale: Value, sums: Value,
    weighted: Value, flip: Value,
) -> None:  # fmt: skip
    """Emits the writing of a block's 32 quants, two vectors of int32, and of what matmuls read
    beside them."""
    add = e.declare("llvm.vector.reduce.add.v16i32", I32, [I32X16])
    flip = e.splat(e.b.trunc(flip, I8))
    for i, q in enumerate(whole):
        e.store(e.b.xor(e.b.trunc(q, I8X16), flip), e.at(quants, 16 * i))
    e.store(step, scale, 4)
    parts = [e.b.neg(e.b.call(add, [q])) for q in whole]
    for i, part in enumerate([*parts, e.b.add(*parts)]):
        e.store(part, e.at(sums, 4 * i), 4)
        e.store(e.b.fmul(e.b.sitofp(part, F32), step), e.at(weighted, 4 * i), 4)


@intrinsic
def _quantize_block(
    typingctx: Any, x: Any, quants: Any, scale: Any, sums: Any, weighted: Any, flip: Any
) -> Any:
    """Quantizes 32 floats at address x to int8 with one scale: q = rint(x * 127 / max|x|). Of a
    block with what is no number the scale is none.

    Also writes the scale, minus the sums of the quants (first 16, last 16, all), and the same
    times the scale. The bits of `flip` are inverted in the stored quants.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        x, quants, scale, sums, weighted, flip = args
        v = [e.load(F32X16, e.at(x, 64 * i), 4) for i in range(2)]
        fabs = e.declare("llvm.fabs.v16f32", F32X16, [F32X16])
        larger = e.declare("llvm.smax.v16i32", I32X16, [I32X16, I32X16])
        across = e.declare("llvm.vector.reduce.smax.v16i32", I32, [I32X16])
        rint = e.declare("llvm.rint.v16f32", F32X16, [F32X16])
        # As integers they are in the same order, NaN last; as floats the compiler takes one after
        # another, for the sake of NaN.
        sizes = [builder.bitcast(builder.call(fabs, [i]), I32X16) for i in v]
        top = builder.bitcast(builder.call(across, [builder.call(larger, sizes)]), F32)
        inverse = builder.fdiv(ir.Constant(F32, 127.0), top)
        # A block of zeros gets the scale zero, and zero times zero as its quants.
        is_zero = builder.fcmp_ordered("==", top, ir.Constant(F32, 0.0))
        inverse = e.splat(builder.select(is_zero, ir.Constant(F32, 0.0), inverse))
        whole = [builder.fptosi(builder.call(rint, [builder.fmul(i, inverse)]), I32X16) for i in v]
        step = builder.fdiv(top, ir.Constant(F32, 127.0))
        _store_block(e, whole, step, quants, scale, sums, weighted, flip)
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


@intrinsic
def _place_block(
    typingctx: Any, block: Any, step: Any, quants: Any, scale: Any, sums: Any, weighted: Any,
    flip: Any,
) -> Any:  # fmt: skip
    """Writes the 32 int8 at address `block`, quantized with the scale `step`, as `_quantize_block`
    wrote them where they come from."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        block, step, *places = args
        whole = [builder.sext(e.load(I8X16, e.at(block, 16 * i)), I32X16) for i in range(2)]
        _store_block(e, whole, step, *places)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, *[types.int64] * 5), codegen


@jitted
def lay_out(a, row, token, n_tokens, needs):
    """Writes a row into the tiles that the kernels read, as row `token` of n_tokens."""
    _, tiles, quants, scales, sums, weighted, bf16 = a
    as_quants, as_tiles, as_bf16 = needs
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
    if as_tiles or as_bf16:
        tile, lane, width = _place(token, n_tokens, False)
    if as_tiles:
        for col in range(n_cols):
            tiles[tile * n_cols + col * width + lane] = row[col]
    if as_bf16:
        _lay_out_bf16(row, bf16, tile, lane, width)


@jitted
def _lay_out_bf16(row, out, tile, lane, width):
    """Writes a row's numbers, rounded to bfloat16, to its place in a tile. The column that is
    missing in the last pair is 0."""
    n_pairs = (row.size + 1) // 2
    for pair in range(n_pairs):
        first, second = _bf16_bits(row[2 * pair]), np.int64(0)
        if 2 * pair + 1 < row.size:
            second = _bf16_bits(row[2 * pair + 1])
        if IN_PAIRS:
            out[tile * n_pairs + pair * width + lane] = first | second << 16
        else:
            at = 2 * (tile * n_pairs + pair * width) + lane
            out[at], out[at + width] = second << 16, first << 16


@jitted
def widest_laid_out(n_tokens, needs):
    """Most rows of a tile that one thread lays out: they share cache lines."""
    return widest_tile(n_tokens, needs[0] and not needs[1] and not needs[2])


@jitted
def claim_rows(team, n_tokens, own, needs):
    """Claims a tile for the calling thread: (first, end) of its rows that are in `own`, both the
    same once all tiles are taken."""
    begin, stop = own
    widest = widest_laid_out(n_tokens, needs)
    number = claim(team, 1)
    if begin < stop:
        number += tile_number(begin, n_tokens, widest)
    if begin >= stop or number >= n_tiles(n_tokens, widest):
        return stop, stop
    first, end = tile_bounds(number, n_tokens, widest)
    return max(begin, min(first, stop)), min(end, stop)


@region
def _lay_out_rows(thread, team, a, n_tokens, own, needs):
    while True:
        first, end = claim_rows(team, n_tokens, own, needs)
        for t in range(first, end):
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _prepare(team, a, n_tokens, own, needs):
    _lay_out_rows(team, (team, a, n_tokens, own, needs))


def prepare(
    team: np.ndarray, a: Activations, n_tokens: int, needs: Needs,
    own: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Prepares what was written to a.rows as a matmul's input; `own` = (first, end) are the rows,
    where they are not all."""
    launch(_prepare, team, tuple(a), n_tokens, own or (0, n_tokens), needs)


def wire_words(cols: int) -> int:
    """Returns the words of 4 bytes that a row takes as it is exchanged between ranks: its quants,
    then the scales of its blocks."""
    return cols // 4 + cols // BLOCK


@jitted
def _pack_row(a, token, n_tokens, wire):
    """Writes the quants and scales of row `token` to wire[token]."""
    rows, _, quants, scales, _, _, _ = a
    n_blocks = rows.shape[1] // BLOCK
    flip = _FLIPPED if n_tokens >= MANY_FROM else 0
    tile, lane, width = _place(token, n_tokens, True)
    for block in range(n_blocks):
        slot = tile * n_blocks + block * width + lane
        source = address(quants) + slot * BLOCK
        target = address(wire) + 4 * token * wire.shape[1] + block * BLOCK
        for i in range(0, BLOCK, 8):
            store_i64(target + i, load_i64(source + i) ^ flip)
        wire[token, n_blocks * (BLOCK // 4) + block] = scales[slot]


@jitted
def _unpack_row(wire, a, token, n_tokens):
    """Lays out row `token` as wire[token] has it."""
    rows, _, quants, scales, sums, weighted, _ = a
    n_blocks = rows.shape[1] // BLOCK
    flip = 128 if n_tokens >= MANY_FROM else 0
    tile, lane, width = _place(token, n_tokens, True)
    for block in range(n_blocks):
        slot = tile * n_blocks + block * width + lane
        _place_block(
            address(wire) + 4 * token * wire.shape[1] + block * BLOCK,
            wire[token, n_blocks * (BLOCK // 4) + block],
            address(quants) + slot * BLOCK,
            address(scales) + slot * 4,
            address(sums) + slot * 12,
            address(weighted) + slot * 12,
            flip,
        )


@region
def _pack_rows(thread, team, a, n_tokens, own, needs, wire):
    while True:
        first, end = claim_rows(team, n_tokens, own, needs)
        for t in range(first, end):
            _pack_row(a, t, n_tokens, wire)
        if first == end:
            return


@region
def _unpack_rows(thread, team, wire, a, n_tokens, own, needs):
    while True:
        first, end = claim_rows(team, n_tokens, own, needs)
        for t in range(first, end):
            _unpack_row(wire, a, t, n_tokens)
        if first == end:
            return


@kernel
def _pack(team, a, n_tokens, own, needs, wire):
    _pack_rows(team, (team, a, n_tokens, own, needs, wire))


@kernel
def _unpack(team, wire, a, n_tokens, own, needs):
    _unpack_rows(team, (team, wire, a, n_tokens, own, needs))


def pack_quants(
    team: np.ndarray, a: Activations, n_tokens: int, own: tuple[int, int], wire: np.ndarray
) -> None:
    """Writes the quants and scales of the rows (first, end) of `own` to the same rows of wire (T,
    wire_words) float32, whose layout does not depend on the processor."""
    launch(_pack, team, tuple(a), n_tokens, own, Needs(quants=True), wire)


def unpack_quants(
    team: np.ndarray, wire: np.ndarray, a: Activations, n_tokens: int, own: tuple[int, int]
) -> None:
    """Lays out the rows (first, end) of `own` as `pack_quants` wrote them elsewhere: with all the
    bits that quantizing them here would have. Rows of floats stay as they are."""
    launch(_unpack, team, wire, tuple(a), n_tokens, own, Needs(quants=True))
