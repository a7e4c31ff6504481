"""Causal attention over KV pages of half floats.

A page holds 32 tokens of one key/value head: keys as (head_dim, 32), so that one vector holds 16
tokens and scores need no sums across lanes; values as (32, padded head_dim). The query heads that
share a key/value head, and for prompts some neighbouring rows, read each page together.

Pages are visited in order with an online softmax (Milakov & Gimelshein, arXiv:1805.02867), and what
a row's mask hides adds exact zeros: a row's result depends on its own tokens alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.arrays import aligned
from kernels.emit import Emit
from kernels.exponential import exp_f32
from kernels.intrinsics import address
from kernels.jit import jitted, kernel, reordered
from kernels.team import claim, region
from kernels.vectors import F32X16, I64, Value

PAGE = 32  # tokens of a page
QUERIES = 8  # query rows that read a page together: 8 x 2 vectors of sums fit the registers
LANES = 16
NEGATIVE = np.float32(-3.0e38)  # below every score, and finite: differences stay numbers


class KvPages(NamedTuple):
    """Keys and values of all layers, as half floats' bits."""

    keys: np.ndarray  # (n_layers, n_pages, n_kv_heads, head_dim * 32) uint16
    values: np.ndarray  # (n_layers, n_pages, n_kv_heads, 32 * padded head_dim) uint16


def padded(head_dim: int) -> int:
    """Values of a token are padded to whole vectors."""
    return -(-head_dim // LANES) * LANES


def page_bytes(n_layers: int, n_kv_heads: int, head_dim: int) -> int:
    """Bytes of one page over all layers."""
    return n_layers * n_kv_heads * PAGE * 2 * (head_dim + padded(head_dim))


def kv_pages(n_layers: int, n_pages: int, n_kv_heads: int, head_dim: int) -> KvPages:
    return KvPages(
        aligned((n_layers, n_pages, n_kv_heads, head_dim * PAGE), np.uint16),
        aligned((n_layers, n_pages, n_kv_heads, PAGE * padded(head_dim)), np.uint16),
    )


def scratch(n_threads: int, head_dim: int) -> np.ndarray:
    """Room for one thread's queries, scores and sums: (n_threads, words) float32."""
    words = QUERIES * (head_dim + PAGE + padded(head_dim) + 3 * LANES)
    return aligned((n_threads, -(-words // LANES) * LANES), np.float32)


# -- emitted pieces --------------------------------------------------------------------------


def _emit_scores(e: Emit, n: int, args: Any) -> None:
    """scores (n, 32) = queries (head_dim, n) . page of keys (head_dim, 32)."""
    queries, keys, scores, head_dim = args
    zero = e.constant(F32X16, 0.0)
    acc = [[e.variable(zero) for _ in range(2)] for _ in range(n)]
    with e.loop(head_dim) as d:
        key_row = e.b.add(keys, e.b.mul(d, e.i64(PAGE * 2)))
        query_row = e.b.add(queries, e.b.mul(d, e.i64(n * 4)))
        halves = [e.load_f16(e.at(key_row, 32 * i)) for i in range(2)]
        for q in range(n):
            query = e.load_splat_f32(e.at(query_row, 4 * q))
            for i in range(2):
                acc[q][i].set(e.fma(query, halves[i], acc[q][i].get()))
    for q in range(n):
        for i in range(2):
            e.store(acc[q][i].get(), e.at(scores, q * PAGE * 4 + 64 * i), 64)


def _emit_mix_columns(e: Emit, n: int, width: int, args: Any, column: Value) -> None:
    """The columns column .. column + 16 * width of _emit_mix."""
    weights, values, sums, decay, n_tokens, row_len = args
    acc = []
    offset = e.b.mul(column, e.i64(4))
    for q in range(n):
        where = e.b.add(e.b.add(sums, offset), e.b.mul(row_len, e.i64(4 * q)))
        factor = e.load_splat_f32(e.at(decay, 4 * q))
        acc.append([(e.at(where, 64 * i), e.variable(
            e.b.fmul(e.load_f32(e.at(where, 64 * i)), factor))) for i in range(width)])  # fmt: skip
    with e.loop(n_tokens) as token:
        row = e.b.add(values, e.b.mul(e.b.add(e.b.mul(token, row_len), column), e.i64(2)))
        loaded = [e.load_f16(e.at(row, 32 * i)) for i in range(width)]
        weight = e.b.add(weights, e.b.mul(token, e.i64(4)))
        for q in range(n):
            factor = e.load_splat_f32(e.at(weight, q * PAGE * 4))
            for i in range(width):
                acc[q][i][1].set(e.fma(factor, loaded[i], acc[q][i][1].get()))
    for q in range(n):
        for where, value in acc[q]:
            e.store(value.get(), where, 4)


def _emit_mix(e: Emit, n: int, args: Any) -> None:
    """sums (n, padded head_dim) = sums * decay (n) + weights (n, 32) . values (n_tokens, ...)."""
    row_len = args[5]
    pair = e.i64(2 * LANES)
    n_pairs = e.b.sdiv(row_len, pair)
    with e.loop(n_pairs) as turn:
        _emit_mix_columns(e, n, 2, args, e.b.mul(turn, pair))
    column = e.b.mul(n_pairs, pair)
    with e.loop(e.b.sdiv(e.b.sub(row_len, column), e.i64(LANES))):
        _emit_mix_columns(e, n, 1, args, column)


def _per_query_count(name: str, emit: Any, n_args: int) -> Any:
    """An intrinsic f(n_queries, <addresses and sizes>) with code for each number of queries."""

    def function(module: Any, n: int) -> Any:
        full = f"dllama.{name}.{n}"
        if full in module.globals:
            return module.globals[full]
        kind = ir.FunctionType(ir.VoidType(), [I64] * n_args)
        f = ir.Function(module, kind, full)
        f.linkage = "internal"
        f.attributes.add("noinline")
        builder = ir.IRBuilder(f.append_basic_block("entry"))
        emit(Emit(builder), n, f.args)
        builder.ret_void()
        return f

    @intrinsic
    def call(typingctx: Any, n_queries: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[1], i) for i in range(n_args)]
            done = builder.append_basic_block(f"{name}.done")
            switch = builder.switch(values[0], done)
            for n in range(1, QUERIES + 1):
                case = builder.append_basic_block(f"{name}.{n}")
                switch.add_case(ir.Constant(I64, n), case)
                builder.position_at_end(case)
                builder.call(function(builder.module, n), args)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, n_args)), codegen

    return call


_scores = _per_query_count("scores", _emit_scores, 4)
_mix = _per_query_count("mix", _emit_mix, 6)


# -- one tile --------------------------------------------------------------------------------


@reordered
def _largest(scores, n_valid, top):
    for i in range(n_valid):
        top = max(top, scores[i])
    return top


@reordered
def _sum(weights):
    total = np.float32(0)
    for i in range(PAGE):
        total += weights[i]
    return total


@jitted
def _soften(scores, n_valid, top, total):
    """Scores (32,) of one query to weights, in place; returns (new top, new total, decay)."""
    best = _largest(scores, n_valid, top)
    decay = exp_f32(top - best)
    for i in range(PAGE):
        scores[i] = exp_f32(scores[i] - best)
    for i in range(max(n_valid, 0), PAGE):
        scores[i] = np.float32(0)
    return best, total * decay + _sum(scores), decay


@jitted
def _attend(qkv, first_row, n_rows, heads, positions, pages, keys, values, head_dim, room, out):
    """Rows first_row .. + n_rows of one sequence, query heads `heads` = (first, count, kv head)."""
    first_head, n_heads, kv_head = heads
    n = n_rows * n_heads
    width = values.shape[2] // PAGE
    q = room[: head_dim * n]
    scores = room[QUERIES * head_dim : QUERIES * (head_dim + PAGE)].reshape(QUERIES, PAGE)
    base = QUERIES * (head_dim + PAGE)
    sums = room[base : base + QUERIES * width].reshape(QUERIES, width)
    base += QUERIES * width
    tops, totals, decays = (
        room[base : base + LANES], room[base + LANES : base + 2 * LANES],
        room[base + 2 * LANES : base + 3 * LANES],
    )  # fmt: skip
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for i in range(n):
        row, head = first_row + i // n_heads, first_head + i % n_heads
        for d in range(head_dim):
            q[d * n + i] = qkv[row, head * head_dim + d] * scale
        tops[i], totals[i] = NEGATIVE, np.float32(0)
        sums[i, :] = np.float32(0)
    last = positions[first_row + n_rows - 1]
    for page in range(last // PAGE + 1):
        start = page * PAGE
        number = pages[page]
        _scores(n, (address(q), address(keys[number, kv_head]), address(scores), head_dim))
        for i in range(n):
            n_valid = min(PAGE, positions[first_row + i // n_heads] - start + 1)
            tops[i], totals[i], decays[i] = _soften(scores[i], n_valid, tops[i], totals[i])
        _mix(n, (address(scores), address(values[number, kv_head]), address(sums),
                 address(decays), min(PAGE, last - start + 1), width))  # fmt: skip
    for i in range(n):
        row, head = first_row + i // n_heads, first_head + i % n_heads
        share = np.float32(1) / totals[i]
        for d in range(head_dim):
            out[row, head * head_dim + d] = sums[i, d] * share


@jitted
def _plan_tiles(starts, rows_per_tile, tiles):
    """Cuts each sequence's rows into tiles of neighbours; returns how many there are."""
    n = 0
    for s in range(starts.size - 1):
        for row in range(starts[s], starts[s + 1], rows_per_tile):
            tiles[n, 0], tiles[n, 1] = row, min(rows_per_tile, starts[s + 1] - row)
            tiles[n, 2] = s
            n += 1
    return n


@region
def _attend_all(thread, team, qkv, tiles, n_tiles, group, positions, pages, keys, values, head_dim,
                rooms, out):  # fmt: skip
    n_kv_heads = keys.shape[1]
    parts = -(-group // QUERIES)
    while True:
        item = claim(team, 1)
        if item >= n_tiles * n_kv_heads * parts:
            return
        # Last tiles first: they are the longest, and must not be left for the end.
        tile = n_tiles - 1 - item // (n_kv_heads * parts)
        kv_head, part = item // parts % n_kv_heads, item % parts
        first = part * QUERIES
        heads = (kv_head * group + first, min(QUERIES, group - first), kv_head)
        _attend(qkv, tiles[tile, 0], tiles[tile, 1], heads, positions, pages[tiles[tile, 2]],
                keys, values, head_dim, rooms[thread], out)  # fmt: skip


@kernel
def _attention(team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim, rooms,
               out):  # fmt: skip
    rows_per_tile = max(1, QUERIES // group)
    n_tiles = _plan_tiles(starts, rows_per_tile, tiles)
    _attend_all(team, (team, qkv, tiles, n_tiles, group, positions, pages, keys, values, head_dim,
                       rooms, out))  # fmt: skip


def attention(
    team: np.ndarray, qkv: np.ndarray, starts: np.ndarray, tiles: np.ndarray, group: int,
    positions: np.ndarray, pages: np.ndarray, keys: np.ndarray, values: np.ndarray,
    head_dim: int, rooms: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """out[:, heads] = softmax(q . k / sqrt(head_dim)) . v for every row of the step.

    qkv (T, ...) begins with the rotated queries; `group` query heads share a key/value head;
    starts (S + 1,), positions (T,) and pages (S, max_pages) int32 are the step's; keys and values
    are one layer of KvPages, which already hold the rows' own; tiles (T, 3) int32 and rooms
    (from `scratch`) are working space; out (T, n_heads * head_dim or wider) float32.
    """
    _attention(team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim, rooms,
               out)  # fmt: skip
