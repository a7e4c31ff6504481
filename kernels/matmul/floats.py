"""Weights that are plain numbers times tokens: one multiplication and addition after the other."""

from __future__ import annotations

from functools import partial
from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import address
from kernels.emit.jit import jitted, named
from kernels.emit.vectors import F32, I32, Value
from kernels.matmul.batches import batch_of, n_batches
from kernels.matmul.runs import (
    GROUPS_AT_ONCE,
    Pointers,
    chunk_of_groups,
    run_of_groups,
)
from kernels.matmul.sums import TileSums
from kernels.matmul.tiles import (
    FEW,
    HAS_WIDE_REGISTERS,
    MANY_FLOAT,
    MANY_FROM,
    NEAR_BYTES,
    n_tiles,
    tile_bounds,
    widest_tile,
)
from kernels.team import claim, region
from kernels.weights.layout import GROUP, FloatType

FLOAT_GROUPS_AT_ONCE = (
    {n: 4 if n < 6 else 2 for n in range(1, 13)} if HAS_WIDE_REGISTERS else {1: 2}
)
"""Groups that a tile works on at once, by its tokens: enough independent sums to hide the latency
of an fma."""


def emit_float_tile(
    fmt: FloatType, e: Emit, p: Pointers, tokens: int, groups: int, first: Value,
    is_fetched: bool = True,
) -> None:  # fmt: skip
    """Emits a tile of one type; bound to the type, it is an EmitTile. Weights are fetched ahead
    unless they are in the caches."""
    sums = TileSums(e, p.sums, tokens, groups)
    acc = sums.acc
    numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
    w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in numbers]
    multiply = e.dot_bf16 if fmt.is_dotted else e.fma
    with sums.steps(p.n_steps) as vector:
        step = e.b.mul(vector, e.i64(fmt.vector_bytes))
        weights = [fmt.load(e, e.b.add(base, step)) for base in w_base]
        if is_fetched:
            further = e.b.add(e.b.mul(vector, p.pace), p.quants_ahead)
            for base in w_base:
                e.prefetch(e.b.add(base, further))
        input_bytes = 4 * fmt.input_words * tokens
        activations = e.b.add(p.a_quants, e.b.mul(vector, e.i64(input_bytes)))
        for i in range(fmt.input_words):
            for t in range(tokens):
                word = e.load(I32, e.at(activations, 4 * (i * tokens + t)), 4)
                factor = e.splat(word) if fmt.is_dotted else e.splat(e.b.bitcast(word, F32))
                for g in range(groups):
                    acc[g][t].set(multiply(weights[g][i], factor, acc[g][t].get()))
    sums.store(p.out, p.out_stride, numbers)


@jitted
def _ahead(number, n_tokens, widest, stride, vector_bytes):
    """The distance ahead at which tile `number` of the tokens fetches weights, and the bytes it
    moves on there with each vector. A single tile fetches what it reads soon. Of several that read
    the same groups of `stride` bytes, the first fetches the former half of each of the next groups
    and the second the latter, so that memory has work all the time."""
    if n_tokens <= widest:
        return NEAR_BYTES, vector_bytes
    if number > 1:
        return 0, 0
    return GROUPS_AT_ONCE * stride + number * (stride // 2), vector_bytes // 2


def float_matmul(fmt: FloatType) -> Any:
    """A region that multiplies a matrix of plain numbers with any number of tokens."""
    widest_emitted = max(FEW, MANY_FLOAT) if HAS_WIDE_REGISTERS else FEW
    tile = run_of_groups(
        fmt.name, partial(emit_float_tile, fmt), 1, widest_emitted, FLOAT_GROUPS_AT_ONCE
    )
    vector_bytes, input_bytes = fmt.vector_bytes, 4 * fmt.input_words
    is_expanded = fmt.is_expanded

    @region
    @named(f"multiply_rows_{fmt.name}")
    def body(thread, team, quants, tiles, n_tokens, out, column, sums, batches):
        unit, kind, high, wide, wide_stride = sums
        table, n_groups, stride = batches
        n_vectors = quants.shape[1] // vector_bytes
        chunk = chunk_of_groups(n_groups * n_batches(table), team[10], n_tokens)
        n_chunks = -(-n_groups // chunk)
        n_pieces = n_chunks * n_batches(table)
        while True:
            piece = claim(team, 1)
            if piece >= n_pieces:
                return
            matrix, first_row, n_rows = batch_of(table, piece // n_chunks, n_tokens)
            if is_expanded and n_rows >= MANY_FROM:
                continue
            widest = widest_tile(n_rows, False)
            first = piece % n_chunks * chunk
            count = min(chunk, n_groups - first)
            size = GROUPS_AT_ONCE if n_rows > FEW else count
            for group in range(first, first + count, size):
                n = min(size, first + count - group)
                w = address(quants) + (matrix * stride + group) * quants.shape[1]
                where = address(out) + (column + group * GROUP) * 4
                for number in range(n_tiles(n_rows, widest)):
                    start, end = tile_bounds(number, n_rows, widest)
                    start, end = first_row + start, first_row + end
                    ahead, pace = _ahead(number, n_rows, widest, quants.shape[1], vector_bytes)
                    tile(end - start, (n_vectors, n, w, 0, quants.shape[1], 0,
                                  address(tiles) + start * n_vectors * input_bytes, 0, 0, 0,
                                  where + start * out.shape[1] * 4, out.shape[1] * 4, ahead,
                                  0, pace, 0, unit, kind, high,
                                  wide + group + start * wide_stride, wide_stride))  # fmt: skip

    return body
