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
from kernels.attention.vectors import (
    LOWEST_SCORE,
    QUERIES,
    ROW,
    SPAN,
    fold_sums,
    mix_page,
    online_softmax,
    score_page,
)
from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import address
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.team import N_THREADS, claim, region

CHUNK = 16  # pages: a fold costs as much as a page's mix, and 512 tokens keep a thread busy
ITEMS_PER_THREAD = 2  # whole tiles, below which chunks are shared out


class Scratch(NamedTuple):
    """The scratch buffers of attention, from `scratch`."""

    threads: np.ndarray  # (n_threads, words): queries, scores, the states of a chunk and of all
    partials: np.ndarray  # (n, words of a state): chunks' states that are not folded yet


@jitted
def state_words(head_dim: int) -> int:
    """A state: sums (QUERIES, padded head_dim), the largest scores and the totals."""
    return QUERIES * padded(head_dim) + 2 * LANES


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


# -- one tile --------------------------------------------------------------------------------


@jitted
def _begin(state, width):
    """Makes it the state of no tokens."""
    for i in range(state.size):
        state[i] = np.float32(0)
    for i in range(QUERIES * width, QUERIES * width + LANES):
        state[i] = np.float32(LOWEST_SCORE)


@jitted
def _fold(n, whole, part, factors, width):
    """Folds `part`, the state of a later chunk, into the state `whole` of n queries. The float
    steps are emitted: this is compiled into several callers and must give the same bits in all."""
    decays, gains = factors[:LANES], factors[LANES : 2 * LANES]
    tops = QUERIES * width
    for i in range(n):
        best = max(whole[tops + i], part[tops + i])
        decays[i] = exp_f32(whole[tops + i] - best)
        gains[i] = exp_f32(part[tops + i] - best)
        whole[tops + i] = best
    fold_sums((address(whole), address(part), address(decays), address(gains), n, width))


@jitted
def _read_queries(qkv, first_row, n, heads, head_dim, q):
    """Writes the scaled queries of a tile to q (n, head_dim)."""
    first_head, n_heads, _ = heads
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for i in range(n):
        row, head = first_row + i // n_heads, first_head + i % n_heads
        source = qkv[row, head * head_dim : (head + 1) * head_dim]
        for d in range(head_dim):
            q[i * head_dim + d] = source[d] * scale


@jitted
def _read_chunk(n, chunk, first_row, heads, positions, pages, keys, values, head_dim, buffer, part):
    """Computes `part`, the state of the tile's queries over the pages `chunk` = (first, end); the
    queries are in the buffer."""
    _, n_heads, kv_head = heads
    width = padded(head_dim)
    q = buffer[: head_dim * n]
    scores = buffer[QUERIES * head_dim : QUERIES * (head_dim + ROW)]  # (QUERIES, ROW)
    decays = buffer[buffer.size - LANES :]
    _begin(part, width)
    tops, totals = part[QUERIES * width :], part[QUERIES * width + LANES :]
    last = positions[first_row + (n - 1) // n_heads]
    for first in range(chunk[0], chunk[1], SPAN):
        n_pages = min(SPAN, chunk[1] - first)
        for i in range(n_pages):
            page = keys[pages[first + i], kv_head]
            at = address(scores) + i * PAGE * 4
            score_page(n, page, (address(q), address(page), at, head_dim))
        for i in range(n):
            n_valid = positions[first_row + i // n_heads] - first * PAGE + 1
            online_softmax((address(scores) + i * ROW * 4, n_valid, address(tops) + i * 4,
                    address(totals) + i * 4, address(decays) + i * 4))  # fmt: skip
        for i in range(n_pages):
            page = values[pages[first + i], kv_head]
            at = address(scores) + i * PAGE * 4
            n_tokens = min(PAGE, last - (first + i) * PAGE + 1)
            mix_page(n, page, (at, address(page), address(part), address(decays),
                               n_tokens, width))  # fmt: skip
            for j in range(LANES):
                decays[j] = np.float32(1)


@jitted
def _states(buffer, head_dim):
    """A buffer's parts: a chunk's state, the state of all chunks, and the factors of a fold."""
    base, words = QUERIES * (head_dim + ROW), state_words(head_dim)
    ends = base + 2 * words
    return buffer[base : base + words], buffer[base + words : ends], buffer[ends : ends + 2 * LANES]


@jitted
def _attend(qkv, tile, heads, span, positions, pages, keys, values, head_dim, buffer):
    """Computes in the buffer the state of a tile's rows, `tile` = (first row, rows, sequence), and
    of query heads, `heads` = (first, count, kv head), over the pages `span` = (first, end)."""
    n = tile[1] * heads[1]
    part, whole, factors = _states(buffer, head_dim)
    _read_queries(qkv, tile[0], n, heads, head_dim, buffer)
    _begin(whole, padded(head_dim))
    for first in range(span[0], span[1], CHUNK):
        chunk = (first, min(first + CHUNK, span[1]))
        _read_chunk(n, chunk, tile[0], heads, positions, pages[tile[2]], keys, values, head_dim,
                    buffer, part)  # fmt: skip
        _fold(n, whole, part, factors, padded(head_dim))


@jitted
def _write_rows(tile, heads, head_dim, whole, out):
    """Writes the rows of a tile from their state over the whole context."""
    width = padded(head_dim)
    for i in range(tile[1] * heads[1]):
        row, head = tile[0] + i // heads[1], heads[0] + i % heads[1]
        share = np.float32(1) / whole[QUERIES * width + LANES + i]
        sums, target = whole[i * width :], out[row, head * head_dim : (head + 1) * head_dim]
        for d in range(head_dim):
            target[d] = sums[d] * share


# -- all tiles -------------------------------------------------------------------------------


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
def _n_chunks(tile, positions):
    """Chunks that a tile's last row attends to."""
    return positions[tile[0] + tile[1] - 1] // (CHUNK * PAGE) + 1


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
                buffers, partials, n_units, n_shared, out):  # fmt: skip
    """n_shared is the number of chunks of the longest tile where chunks are shared out, else 0."""
    while True:
        item = claim(team, 1)
        if item >= n_units * max(n_shared, 1):
            return
        unit, chunk = item // max(n_shared, 1), item % max(n_shared, 1)
        tile, heads = _unit(unit, tiles, n_tiles, group, keys.shape[1])
        first, end = 0, positions[tile[0] + tile[1] - 1] // PAGE + 1
        if n_shared > 0:
            first, end = chunk * CHUNK, min((chunk + 1) * CHUNK, end)
        if first >= end:
            continue
        buffer = buffers[thread]
        _attend(qkv, tile, heads, (first, end), positions, pages, keys, values, head_dim, buffer)
        _, whole, _ = _states(buffer, head_dim)
        if n_shared > 0:
            for i in range(whole.size):
                partials[item, i] = whole[i]
        else:
            _write_rows(tile, heads, head_dim, whole, out)


@region
def _fold_all(thread, team, tiles, n_tiles, group, positions, n_kv_heads, head_dim, buffers,
              partials, n_units, n_shared, out):  # fmt: skip
    while True:
        unit = claim(team, 1)
        if unit >= n_units:
            return
        tile, heads = _unit(unit, tiles, n_tiles, group, n_kv_heads)
        _, whole, factors = _states(buffers[thread], head_dim)
        _begin(whole, padded(head_dim))
        for chunk in range(_n_chunks(tile, positions)):
            part = partials[unit * n_shared + chunk]
            _fold(tile[1] * heads[1], whole, part, factors, padded(head_dim))
        _write_rows(tile, heads, head_dim, whole, out)


@kernel
def _attention(team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim, buffers,
               partials, out):  # fmt: skip
    n_tiles = _plan_tiles(starts, max(1, QUERIES // group), tiles)
    n_kv_heads = keys.shape[1]
    n_units = n_tiles * n_kv_heads * -(-group // QUERIES)
    n_shared = 0
    if n_units < ITEMS_PER_THREAD * team[N_THREADS // 8]:
        for i in range(n_tiles):
            n_shared = max(n_shared, _n_chunks(tiles[i], positions))
    if n_shared <= 1 or n_units * n_shared > partials.shape[0]:
        n_shared = 0
    _attend_all(team, (team, qkv, tiles, n_tiles, group, positions, pages, keys, values, head_dim,
                       buffers, partials, n_units, n_shared, out))  # fmt: skip
    if n_shared > 0:
        _fold_all(team, (team, tiles, n_tiles, group, positions, n_kv_heads, head_dim, buffers,
                         partials, n_units, n_shared, out))  # fmt: skip


def attention(
    team: np.ndarray, qkv: np.ndarray, starts: np.ndarray, tiles: np.ndarray, group: int,
    positions: np.ndarray, pages: np.ndarray, keys: np.ndarray, values: np.ndarray,
    head_dim: int, buffers: Scratch, out: np.ndarray,
) -> None:  # fmt: skip
    """out[:, heads] = softmax(q . k / sqrt(head_dim)) . v for every row of the step.

    qkv (T, ...) begins with the rotated queries; `group` query heads share a key/value head;
    starts (S + 1,), positions (T,) and pages (S, max_pages) int32 are the step's; keys and values
    are one layer of KvPages, which already hold the rows' own; tiles (T, 3) int32 and buffers
    (from `scratch`) are working space; out (T, n_heads * head_dim or wider) float32.
    """
    launch(_attention, team, qkv, starts, tiles, group, positions, pages, keys, values, head_dim,
           buffers.threads, buffers.partials, out)  # fmt: skip
