"""The vector code of attention: queries against a page of keys, weights against one of values.

Emitted for each number of queries that read a page together and for each type of page: see
kernels.attention.kv_pages for their layout.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kernels.attention.kv_pages import BLOCK, LANES, PAGE
from kernels.emit.emitter import Emit, call_one_of, emitted_function
from kernels.emit.jit import intrinsic
from kernels.emit.later import types
from kernels.emit.vectors import F32X16, I8X16, I32X16, Value

QUERIES = 8  # query rows that read a page together: 8 x 2 vectors of sums fit the registers
SPAN = 4  # pages to a softmax step: its cost hardly grows with them
ROW = SPAN * PAGE  # a query's scores of a span


def load_i8(e: Emit, address: Value) -> Value:
    """Sixteen signed bytes as <16 x float>."""
    return e.to_f32(e.b.sext(e.load(I8X16, address), I32X16))


def _smaller(e: Emit, a: Value, b: Value) -> Value:
    return e.b.select(e.b.icmp_signed("<", a, b), a, b)


def _add_scores(
    e: Emit, acc: Any, queries: list[Value], d: Value, key_row: Value, load: Any, size: int
) -> None:
    """acc (n, 2 vectors) += queries (n rows) x 32 tokens' values of dimension d."""
    offset = e.b.mul(d, e.i64(4))
    halves = [load(e.at(key_row, LANES * size * i)) for i in range(2)]
    for q, sums in enumerate(acc):
        query = e.load_splat_f32(e.b.add(queries[q], offset))
        for i in range(2):
            sums[i].set(e.fma(query, halves[i], sums[i].get()))


def _query_rows(e: Emit, n: int, queries: Value, head_dim: Value) -> list[Value]:
    return [e.b.add(queries, e.b.mul(head_dim, e.i64(4 * q))) for q in range(n)]


def _emit_scores(load: Any, size: int, n: int, e: Emit, args: Any) -> None:
    """32 columns of scores (n, ROW) = queries (n, head_dim) . page of keys (head_dim, 32): floats
    of `size` bytes, sixteen of which `load(e, address)` loads."""
    queries, keys, scores, head_dim = args
    rows = _query_rows(e, n, queries, head_dim)
    zero = e.constant(F32X16, 0.0)
    acc = [[e.variable(zero) for _ in range(2)] for _ in range(n)]
    with e.loop(head_dim) as d:
        row = e.b.add(keys, e.b.mul(d, e.i64(PAGE * size)))
        _add_scores(e, acc, rows, d, row, partial(load, e), size)
    for q in range(n):
        for i in range(2):
            e.store(acc[q][i].get(), e.at(scores, q * ROW * 4 + 64 * i), 64)


def _emit_scores_q8(n: int, e: Emit, args: Any) -> None:
    """The same of q8_0. The sums of a block are scaled when complete and kept in `scores`, as the
    registers are full."""
    queries, keys, scores, head_dim = args
    rows = _query_rows(e, n, queries, head_dim)
    zero, block_len = e.constant(F32X16, 0.0), e.i64(BLOCK)
    acc = [[e.variable(zero) for _ in range(2)] for _ in range(n)]
    for q in range(n):
        for i in range(2):
            e.store(zero, e.at(scores, q * ROW * 4 + 64 * i), 64)
    scales = e.b.add(keys, e.b.mul(head_dim, e.i64(PAGE)))
    with e.loop(e.b.sdiv(e.at(head_dim, BLOCK - 1), block_len)) as block:
        first = e.b.mul(block, block_len)
        for sums in acc:
            for variable in sums:
                variable.set(zero)
        with e.loop(_smaller(e, block_len, e.b.sub(head_dim, first))) as i:
            d = e.b.add(first, i)
            row = e.b.add(keys, e.b.mul(d, e.i64(PAGE)))
            _add_scores(e, acc, rows, d, row, partial(load_i8, e), 1)
        scale_row = e.b.add(scales, e.b.mul(block, e.i64(PAGE * 2)))
        factors = [e.load_f16(e.at(scale_row, 32 * i)) for i in range(2)]
        for q in range(n):
            for i in range(2):
                where = e.at(scores, q * ROW * 4 + 64 * i)
                so_far = e.load(F32X16, where, 64)
                e.store(e.fma(acc[q][i].get(), factors[i], so_far), where, 64)


def _decayed(e: Emit, n: int, width: int, args: Any, column: Value) -> Any:
    """[(address, variable)] of `width` vectors of each query's sums, times the query's decay."""
    sums, decay, row_len = args
    offset, found = e.b.mul(column, e.i64(4)), []
    for q in range(n):
        where = e.b.add(e.b.add(sums, offset), e.b.mul(row_len, e.i64(4 * q)))
        factor = e.load_splat_f32(e.at(decay, 4 * q))
        found.append([(e.at(where, 64 * i), e.variable(
            e.b.fmul(e.load_f32(e.at(where, 64 * i)), factor))) for i in range(width)])  # fmt: skip
    return found


def _mix_columns(
    load: Any, size: int, e: Emit, n: int, width: int, args: Any, column: Value
) -> None:
    """The columns column .. column + 16 * width of _emit_mix: floats, loaded as by _emit_scores."""
    weights, values, sums, decay, n_tokens, row_len = args
    acc = _decayed(e, n, width, (sums, decay, row_len), column)
    with e.loop(n_tokens) as token:
        row = e.b.add(values, e.b.mul(e.b.add(e.b.mul(token, row_len), column), e.i64(size)))
        loaded = [load(e, e.at(row, LANES * size * i)) for i in range(width)]
        _add_mix(e, acc, e.b.add(weights, e.b.mul(token, e.i64(4))), ROW, loaded)
    _store_mix(e, acc)


def _mix_columns_q8(e: Emit, n: int, width: int, args: Any, column: Value) -> None:
    """The same of q8_0. The columns are one block: its scales are multiplied into the weights."""
    weights, values, sums, decay, n_tokens, row_len = args
    acc = _decayed(e, n, width, (sums, decay, row_len), column)
    scaled = e.stack(F32X16, n * PAGE // LANES)
    # Columns times 2: a block of 32 columns has 32 scales of 2 bytes.
    scales = e.b.add(e.b.add(values, e.b.mul(row_len, e.i64(PAGE))), e.b.mul(column, e.i64(2)))
    for i in range(2):
        factor = e.load_f16(e.at(scales, 32 * i))
        for q in range(n):
            weight = e.load_f32(e.at(weights, q * ROW * 4 + 64 * i))
            e.store(e.b.fmul(weight, factor), e.at(scaled, q * PAGE * 4 + 64 * i), 64)
    with e.loop(n_tokens) as token:
        row = e.b.add(values, e.b.add(e.b.mul(token, row_len), column))
        loaded = [load_i8(e, e.at(row, LANES * i)) for i in range(width)]
        _add_mix(e, acc, e.b.add(scaled, e.b.mul(token, e.i64(4))), PAGE, loaded)
    _store_mix(e, acc)


def _add_mix(e: Emit, acc: Any, weight: Value, row: int, loaded: list[Value]) -> None:
    """acc += a token's weights, which are `row` values apart, times its loaded values."""
    for q, sums in enumerate(acc):
        factor = e.load_splat_f32(e.at(weight, q * row * 4))
        for (_, value), values in zip(sums, loaded, strict=True):
            value.set(e.fma(factor, values, value.get()))


def _store_mix(e: Emit, acc: Any) -> None:
    for sums in acc:
        for where, value in sums:
            e.store(value.get(), where, 4)


def _emit_mix(columns: Any) -> Any:
    """sums (n, padded head_dim) = sums * decay (n) + 32 columns of weights (n, ROW) . values
    (n_tokens, ...)."""

    def emit(n: int, e: Emit, args: Any) -> None:
        row_len = args[5]
        pair = e.i64(2 * LANES)
        n_pairs = e.b.sdiv(row_len, pair)
        with e.loop(n_pairs) as turn:
            columns(e, n, 2, args, e.b.mul(turn, pair))
        column = e.b.mul(n_pairs, pair)
        with e.loop(e.b.sdiv(e.b.sub(row_len, column), e.i64(LANES))):
            columns(e, n, 1, args, column)

    return emit


def per_query_count(name: str, emitters: dict[int, Any], n_args: int) -> Any:
    """An intrinsic f(n_queries, page, <addresses and sizes>) with code for each number of queries;
    emitters are by the bits of the page's words."""

    @intrinsic
    def call(typingctx: Any, n_queries: Any, page: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            bits = signature.args[1].dtype.bitwidth
            args = [builder.extract_value(values[2], i) for i in range(n_args)]
            functions = [
                (n, emitted_function(
                    builder.module, f"dllama.{name}{bits}.{n}", n_args, partial(emitters[bits], n)
                ))
                for n in range(1, QUERIES + 1)
            ]  # fmt: skip
            call_one_of(builder, values[0], functions, args)
            return context.get_dummy_value()

        return types.void(types.int64, page, types.UniTuple(types.int64, n_args)), codegen

    return call


_HALF, _SINGLE = (Emit.load_f16, 2), (Emit.load_f32, 4)

score_page = per_query_count(
    "scores",
    {8: _emit_scores_q8, 16: partial(_emit_scores, *_HALF), 32: partial(_emit_scores, *_SINGLE)},
    4,
)
"""score_page(n, page of keys, addresses of (queries, keys, scores) and head_dim)."""

mix_page = per_query_count(
    "mix",
    {
        8: _emit_mix(_mix_columns_q8),
        16: _emit_mix(partial(_mix_columns, *_HALF)),
        32: _emit_mix(partial(_mix_columns, *_SINGLE)),
    },
    6,
)
"""mix_page(n, page of values, addresses of (weights, values, sums, decays), n_tokens, width)."""
