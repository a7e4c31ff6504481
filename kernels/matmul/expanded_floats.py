"""Half floats and bfloat16 times many tokens: a few groups of weights are made float32 in a
thread's scratch buffer, and multiplied with all tokens before the next ones are. Conversions take
the multiplications' place in the processor; here the tokens share their cost. Sums are those of
floats.py, in its order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kernels.emit.emitter import Emit, emitted_function
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, named
from kernels.emit.later import types
from kernels.emit.vectors import F32X16, Value
from kernels.matmul.batches import batch_of, most_rows, n_batches
from kernels.matmul.floats import emit_float_tile
from kernels.matmul.runs import run_of_groups
from kernels.matmul.tiles import MANY_FLOAT, MANY_FROM, NEAR_BYTES, n_tiles, tile_bounds
from kernels.team import SCRATCH_BYTES, claim, region, scratch_of
from kernels.weights.layout import GROUP, FloatType

VECTOR = 64  # bytes
PAIR = 2  # groups that share each activation
NARROWEST = min(n // n_tiles(n, MANY_FLOAT) for n in range(MANY_FROM, MANY_FROM + MANY_FLOAT))
"""The tile with the fewest tokens where they are cut evenly."""

MOST_GROUPS = 8
CHUNK_BYTES = 1 << 20
"""Expanded groups that a thread works on: they stay in its second cache beside a tile of tokens."""


MAX_COLS = SCRATCH_BYTES // (PAIR * GROUP * 4)
"""Columns of which two groups fit a thread's scratch buffer."""


def _load_whole(e: Emit, where: Value) -> list[Value]:
    return [e.load(F32X16, where, VECTOR)]


def _emit_expand(fmt: FloatType, e: Emit, args: Any) -> None:
    n_vectors, packed, expanded = args
    with e.loop(n_vectors) as vector:
        where = e.b.add(packed, e.b.mul(vector, e.i64(fmt.vector_bytes)))
        target = e.b.add(expanded, e.b.mul(vector, e.i64(VECTOR * fmt.columns)))
        e.prefetch(e.at(where, NEAR_BYTES), fmt.vector_bytes)
        for i, numbers in enumerate(fmt.load(e, where)):
            e.store(numbers, e.at(target, VECTOR * i), VECTOR)


def _expander(fmt: FloatType) -> Any:
    """An intrinsic expand(n_vectors, packed, expanded): makes vectors of packed weights float32;
    the last two are addresses."""

    @intrinsic
    def expand(typingctx: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[0], i) for i in range(3)]
            name = f"dllama.expand.{fmt.name}"
            function = emitted_function(builder.module, name, 3, partial(_emit_expand, fmt))
            builder.call(function, args)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, 3)), codegen

    return expand


def expanded_float_matmul(fmt: FloatType) -> Any:
    """A region that multiplies a matrix of plain numbers with many tokens."""
    whole, expand = FloatType(f"{fmt.name}.expanded", 4, fmt.read, _load_whole), _expander(fmt)
    tile = run_of_groups(
        whole.name, partial(emit_float_tile, whole, is_fetched=False), NARROWEST, MANY_FLOAT,
        dict.fromkeys(range(NARROWEST, MANY_FLOAT + 1), PAIR),
    )  # fmt: skip
    columns, vector_bytes = fmt.columns, fmt.vector_bytes

    @region
    @named(f"multiply_expanded_{fmt.name}")
    def body(thread, team, packed, tiles, n_tokens, out, column, sums, batches):
        unit, kind, high, wide, wide_stride = sums
        table, n_groups, matrix_stride = batches
        n_vectors = packed.shape[1] // vector_bytes
        n_columns = n_vectors * columns
        stride, buffer = n_columns * VECTOR, scratch_of(team, thread)
        chunk = max(PAIR, min(MOST_GROUPS, CHUNK_BYTES // stride // PAIR * PAIR))
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
            group = matrix * matrix_stride + first
            expand((count * n_vectors, address(packed) + group * packed.shape[1], buffer))
            where = address(out) + (column + first * GROUP) * 4
            for number in range(n_tiles(n_rows, MANY_FLOAT)):
                start, end = tile_bounds(number, n_rows, MANY_FLOAT)
                start, end = first_row + start, first_row + end
                tile(end - start, (n_columns, count, buffer, 0, stride, 0,
                              address(tiles) + start * n_columns * 4, 0, 0, 0,
                              where + start * out.shape[1] * 4, out.shape[1] * 4, 0, 0, 0, 0,
                              unit * columns, kind, high,
                              wide + first + start * wide_stride, wide_stride))  # fmt: skip

    return body
