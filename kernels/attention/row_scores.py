"""Scores of pages that hold their tokens one after the other, as values do: what is key and value
at once (latent.py) is kept in this order alone."""

from __future__ import annotations

from typing import Any

from kernels.attention.kv_pages import LANES, PAGE
from kernels.attention.vectors import ROW, load_i8, per_query_count
from kernels.emit.emitter import Emit
from kernels.emit.vectors import F32X16, I32, Value

TOGETHER = 4  # queries of which sums are kept in registers, for two tokens at a time


def _vector(e: Emit, bits: int, page: Value, width: Value, token: Value, at: Value) -> Value:
    """Sixteen values of a token from column `at` on, as <16 x float>."""
    index = e.b.add(e.b.mul(token, width), at)
    if bits == 32:
        return e.load_f32(e.b.add(page, e.b.mul(index, e.i64(4))))
    if bits == 16:
        return e.load_f16(e.b.add(page, e.b.mul(index, e.i64(2))))
    block = e.b.lshr(at, e.i64(5))
    first = e.b.and_(token, e.i64(-LANES))
    scales = e.b.add(page, e.b.mul(width, e.i64(PAGE)))
    row = e.b.add(e.b.mul(block, e.i64(2 * PAGE)), e.b.mul(first, e.i64(2)))
    lane = e.b.trunc(e.b.and_(token, e.i64(LANES - 1)), I32)
    scale = e.b.extract_element(e.load_f16(e.b.add(scales, row)), lane)
    return e.b.fmul(load_i8(e, e.b.add(page, index)), e.splat(scale))


def _emit(bits: int) -> Any:
    """32 columns of scores (n, ROW) = queries (n, width) . page (32, width)."""

    def emit(n: int, e: Emit, args: Any) -> None:
        queries, page, scores, width = args
        for first in range(0, n, TOGETHER):
            count = min(TOGETHER, n - first)
            with e.loop(e.i64(PAGE // 2)) as pair:
                tokens = [e.b.add(e.b.mul(pair, e.i64(2)), e.i64(i)) for i in range(2)]
                _add_pair(e, bits, (queries, page, scores, width), (first, count), tokens)

    return emit


def _add_pair(e: Emit, bits: int, args: Any, own: tuple[int, int], tokens: list[Value]) -> None:
    """The scores of some queries, `own` = (first, count), with two tokens."""
    queries, page, scores, width = args
    first, count = own
    zero = e.constant(F32X16, 0.0)
    sums = [[e.variable(zero) for _ in tokens] for _ in range(count)]
    with e.loop(e.b.sdiv(width, e.i64(LANES))) as number:
        at = e.b.mul(number, e.i64(LANES))
        values = [_vector(e, bits, page, width, token, at) for token in tokens]
        for q in range(count):
            row = e.b.add(queries, e.b.mul(width, e.i64(4 * (first + q))))
            query = e.load_f32(e.b.add(row, e.b.mul(at, e.i64(4))))
            for total, value in zip(sums[q], values, strict=True):
                total.set(e.fma(query, value, total.get()))
    for q in range(count):
        for total, token in zip(sums[q], tokens, strict=True):
            where = e.at(e.b.add(scores, e.b.mul(token, e.i64(4))), (first + q) * ROW * 4)
            e.store(e.fold_lanes(total.get(), e.b.fadd), where, 4)


score_rows = per_query_count("row_scores", {bits: _emit(bits) for bits in (8, 16, 32)}, 4)
"""score_rows(n, page, addresses of (queries, page, scores) and width)."""
