"""Causal attention over KV pages.

The query heads that share a key/value head, and for prompts some neighbouring rows, read each page
together. Pages are visited in order with an online softmax (Milakov & Gimelshein,
arXiv:1805.02867), and what a row's mask hides adds exact zeros: a row's result depends on its own
tokens alone.
"""

from __future__ import annotations

import numpy as np

from kernels.arrays import aligned
from kernels.attention_vectors import QUERIES, mix_page, score_page
from kernels.exponential import exp_f32
from kernels.intrinsics import address
from kernels.jit import jitted, kernel, reordered
from kernels.kv_pages import LANES, PAGE, padded
from kernels.team import claim, region

NEGATIVE = np.float32(-3.0e38)  # below every score, and finite: differences stay numbers


def scratch(n_threads: int, head_dim: int) -> np.ndarray:
    """Room for one thread's queries, scores and sums: (n_threads, words) float32."""
    words = QUERIES * (head_dim + PAGE + padded(head_dim) + 3 * LANES)
    return aligned((n_threads, -(-words // LANES) * LANES), np.float32)


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
    width = padded(head_dim)
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
        key_page, value_page = keys[number, kv_head], values[number, kv_head]
        score_page(n, key_page, (address(q), address(key_page), address(scores), head_dim))
        for i in range(n):
            n_valid = min(PAGE, positions[first_row + i // n_heads] - start + 1)
            tops[i], totals[i], decays[i] = _soften(scores[i], n_valid, tops[i], totals[i])
        mix_page(n, value_page, (address(scores), address(value_page), address(sums),
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
