"""Causal attention over KV pages.

The query heads that share a key/value head, and for prompts some neighbouring rows, read each page
together. Pages are visited in order with an online softmax (Milakov & Gimelshein,
arXiv:1805.02867), and what a row's mask hides adds exact zeros: a row's result depends on its own
tokens only.

A context is read in chunks of 512 tokens. Each gives a state of its own (sums, their weights'
total, the largest score), and a row's result is by definition the fold of these states in their
order. So it has the same bits whether one thread reads all chunks or, where a step has too few
tiles and heads for the threads, several threads share them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.arrays import aligned
from kernels.attention.kv_pages import LANES, PAGE, padded
from kernels.attention.tile import (
    CHUNK,
    Scoring,
    attend_tile,
    begin_state,
    fold,
    state_words,
    states,
    visible_pages,
    write_rows,
)
from kernels.attention.vectors import QUERIES, ROW
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.team import N_THREADS, claim, region

ITEMS_PER_THREAD = 2  # whole tiles, below which chunks are shared out


class Scratch(NamedTuple):
    """The scratch buffers of attention, from `scratch`."""

    threads: np.ndarray  # (n_threads, words): queries, scores, the states of a chunk and of all
    partials: np.ndarray  # (n, words of a state): chunks' states that are not folded yet


def scratch(n_threads: int, head_dim: int, max_tokens: int) -> Scratch:
    """Returns buffers for contexts of up to max_tokens; unused partials cost no memory."""
    state = state_words(head_dim)
    n_chunks = -(-max_tokens // (CHUNK * PAGE))
    n_partials = ITEMS_PER_THREAD * n_threads * n_chunks if n_threads > 1 and n_chunks > 1 else 0
    words = QUERIES * (head_dim + ROW) + 2 * state + 2 * LANES
    return Scratch(
        aligned((n_threads, -(-words // LANES) * LANES), np.float32),
        aligned((n_partials, state), np.float32),
    )


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


@jitted
def _visible_chunks(tile, positions, scoring):
    """The chunks (first, end) that some row of a tile sees."""
    begin, end = visible_pages(tile, positions, scoring)
    return begin // CHUNK, -(-end // CHUNK)


@jitted
def _unit(number, tiles, n_tiles, group, n_kv_heads):
    """The work of one thread at a time where chunks are not shared out: (tile, heads)."""
    parts = -(-group // QUERIES)
    # Last tiles first: they take longest, and would hold up the end.
    tile = n_tiles - 1 - number // (n_kv_heads * parts)
    kv_head, first = number // parts % n_kv_heads, number % parts * QUERIES
    heads = (kv_head * group + first, min(QUERIES, group - first), kv_head)
    return (tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]), heads


@region
def _attend_all(thread, team, qkv, tiles, n_tiles, group, positions, pages, keys, values, head_dim,
                scoring, buffers, partials, n_units, n_shared, out):  # fmt: skip
    """n_shared is the number of chunks of the longest tile where chunks are shared out, else 0."""
    sinks = scoring[3]
    while True:
        item = claim(team, 1)
        if item >= n_units * max(n_shared, 1):
            return
        unit, number = item // max(n_shared, 1), item % max(n_shared, 1)
        tile, heads = _unit(unit, tiles, n_tiles, group, keys.shape[1])
        first, end = visible_pages(tile, positions, scoring)
        if n_shared > 0:
            chunk = first // CHUNK + number
            first, end = max(first, chunk * CHUNK), min((chunk + 1) * CHUNK, end)
        if first >= end:
            continue
        buffer = buffers[thread]
        attend_tile(qkv, tile, heads, (first, end), positions, pages, keys, values, head_dim,
                    scoring, buffer)  # fmt: skip
        _, whole, _ = states(buffer, head_dim)
        if n_shared > 0:
            for i in range(whole.size):
                partials[item, i] = whole[i]
        else:
            write_rows(tile, heads, head_dim, sinks, whole, out)


@region
def _fold_all(thread, team, tiles, n_tiles, group, positions, n_kv_heads, head_dim, scoring,
              buffers, partials, n_units, n_shared, out):  # fmt: skip
    sinks = scoring[3]
    while True:
        unit = claim(team, 1)
        if unit >= n_units:
            return
        tile, heads = _unit(unit, tiles, n_tiles, group, n_kv_heads)
        _, whole, factors = states(buffers[thread], head_dim)
        begin_state(whole, padded(head_dim))
        first, end = _visible_chunks(tile, positions, scoring)
        for number in range(end - first):
            part = partials[unit * n_shared + number]
            fold(tile[1] * heads[1], whole, part, factors, padded(head_dim))
        write_rows(tile, heads, head_dim, sinks, whole, out)


@kernel
def _attention(team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim, scoring,
               buffers, partials, out):  # fmt: skip
    n_tiles = _plan_tiles(starts, max(1, QUERIES // group), tiles)
    n_kv_heads = keys.shape[1]
    n_units = n_tiles * n_kv_heads * -(-group // QUERIES)
    n_shared = 0
    if n_units < ITEMS_PER_THREAD * team[N_THREADS // 8]:
        for i in range(n_tiles):
            first, end = _visible_chunks(tiles[i], positions, scoring)
            n_shared = max(n_shared, end - first)
    if n_shared <= 1 or n_units * n_shared > partials.shape[0]:
        n_shared = 0
    _attend_all(team, (team, qkv, tiles, n_tiles, group, positions, pages, keys, values, head_dim,
                       scoring, buffers, partials, n_units, n_shared, out))  # fmt: skip
    if n_shared > 0:
        _fold_all(team, (team, tiles, n_tiles, group, positions, n_kv_heads, head_dim, scoring,
                         buffers, partials, n_units, n_shared, out))  # fmt: skip


def attention(
    team: np.ndarray, qkv: np.ndarray, starts: np.ndarray, tiles: np.ndarray, group: int,
    positions: np.ndarray, pages: np.ndarray, keys: np.ndarray, values: np.ndarray,
    head_dim: int, scoring: Scoring, buffers: Scratch, out: np.ndarray,
) -> None:  # fmt: skip
    """out[:, heads] = softmax(q . k * scale) . v for every row of the step, as `scoring` says.

    qkv (T, ...) begins with the rotated queries; `group` query heads share a key/value head;
    starts (S + 1,), positions (T,) and pages (S, max_pages) int32 are the step's; keys and values
    are one layer of KvPages, which already hold the rows' own (where values are keys too, keys have
    no words and head_dim is a multiple of 16); tiles (T, 3) int32 and buffers
    (from `scratch`) are working space; out (T, n_heads * head_dim or wider) float32, which may be
    qkv itself. Pages that no row sees are not read.
    """
    launch(_attention, team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim,
           tuple(scoring), buffers.threads, buffers.partials, out)  # fmt: skip
