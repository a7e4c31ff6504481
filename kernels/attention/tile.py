"""Attention of one tile: neighbouring rows of a sequence, and query heads that share a key/value
head, over the chunks of their context.

A state is what has been read: sums of values by weight, the largest score and the weights' total of
each query. What a row's mask hides adds exact zeros to it, in whole pages too, so that a row's
result does not depend on the other rows of its tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.attention.kv_pages import LANES, PAGE, padded
from kernels.attention.row_scores import score_rows
from kernels.attention.softmax import LOWEST_SCORE, fold_sums, online_softmax, windowed_softmax
from kernels.attention.vectors import QUERIES, ROW, SPAN, mix_page, score_page
from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import address
from kernels.emit.jit import jitted
from kernels.soft_cap import cap_softly

CHUNK = 16  # pages: a fold costs as much as a page's mix, and 512 tokens keep a thread busy
NO_SINKS = np.zeros(0, np.float32)


class Scoring(NamedTuple):
    """How a layer's rows weigh what they attend to."""

    scale: np.float32  # of the product of query and key
    cap: np.float32  # the soft cap of scores; 0: none
    window: int  # tokens that a row sees, its own the last of them; 0: all before it
    sinks: np.ndarray  # (query heads,) float32: a logit of each that takes weight and adds no
    # value; empty: none
    is_chunked: bool  # the window is cut off where a multiple of it begins
    growth: np.ndarray  # (n,) float32: what queries are multiplied with; empty: nothing
    growth_length: int  # positions that have one of them
    growth_first: int  # which of them position 0 is


def scoring(
    head_dim: int, *, scale: float | None = None, cap: float = 0.0, window: int | None = None,
    sinks: np.ndarray = NO_SINKS, is_chunked: bool = False, growth: np.ndarray = NO_SINKS,
    growth_length: int = 1, growth_first: int = 0,
) -> Scoring:  # fmt: skip
    """Returns the scoring of heads of this size; the scale is 1 / sqrt(head_dim) where none is
    given."""
    plain = np.float32(1) / np.sqrt(np.float32(head_dim))
    return Scoring(
        plain if scale is None else np.float32(scale), np.float32(cap), window or 0, sinks,
        is_chunked, growth, growth_length, growth_first,
    )  # fmt: skip


@jitted
def state_words(head_dim: int) -> int:
    """A state: sums (QUERIES, padded head_dim), the largest scores and the totals."""
    return QUERIES * padded(head_dim) + 2 * LANES


@jitted
def begin_state(state, width):
    """Makes it the state of no tokens."""
    for i in range(state.size):
        state[i] = np.float32(0)
    for i in range(QUERIES * width, QUERIES * width + LANES):
        state[i] = np.float32(LOWEST_SCORE)


@jitted
def fold(n, whole, part, factors, width):
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
def _read_queries(qkv, first_row, n, heads, positions, head_dim, scoring, q):
    """Writes the scaled queries of a tile to q (n, head_dim)."""
    first_head, n_heads, _ = heads
    _, _, _, _, _, growth, length, before = scoring
    for i in range(n):
        row, head = first_row + i // n_heads, first_head + i % n_heads
        source = qkv[row, head * head_dim : (head + 1) * head_dim]
        scale = scoring[0]
        if growth.size > 0:
            scale *= growth[min((positions[row] + before) // length, growth.size - 1)]
        for d in range(head_dim):
            q[i * head_dim + d] = source[d] * scale


@jitted
def _weigh_span(n, first, first_row, n_heads, positions, scoring, scores, part, decays, width):
    """Makes weights of the scores of n queries for the pages from `first` on."""
    cap, window = scoring[1], scoring[2]
    tops, totals = part[QUERIES * width :], part[QUERIES * width + LANES :]
    for i in range(n):
        row = address(scores) + i * ROW * 4
        position = positions[first_row + i // n_heads]
        n_valid = position - first * PAGE + 1
        top, total, decay = address(tops) + i * 4, address(totals) + i * 4, address(decays) + i * 4
        if cap > 0:
            cap_softly((row, ROW // LANES), cap)
        if window > 0:
            n_hidden = first_seen(position, scoring) - first * PAGE
            windowed_softmax((row, n_valid, top, total, decay, n_hidden))
        else:
            online_softmax((row, n_valid, top, total, decay))


@jitted
def _read_chunk(n, chunk, first_row, heads, positions, pages, keys, values, head_dim, scoring,
                buffer, part):  # fmt: skip
    """Computes `part`, the state of the tile's queries over the pages `chunk` = (first, end); the
    queries are in the buffer. Spans begin at multiples of SPAN, wherever the chunk begins."""
    _, n_heads, kv_head = heads
    width = padded(head_dim)
    q = buffer[: head_dim * n]
    scores = buffer[QUERIES * head_dim : QUERIES * (head_dim + ROW)]  # (QUERIES, ROW)
    decays = buffer[buffer.size - LANES :]
    begin_state(part, width)
    last = positions[first_row + (n - 1) // n_heads]
    for first in range(chunk[0] // SPAN * SPAN, chunk[1], SPAN):
        own = range(max(first, chunk[0]), min(first + SPAN, chunk[1]))
        for number in own:
            at = address(scores) + (number - first) * PAGE * 4
            if keys.shape[2] == 0:  # values are keys too
                page = values[pages[number], kv_head]
                score_rows(n, page, (address(q), address(page), at, head_dim))
            else:
                page = keys[pages[number], kv_head]
                score_page(n, page, (address(q), address(page), at, head_dim))
        _weigh_span(n, first, first_row, n_heads, positions, scoring, scores, part, decays, width)
        for number in own:
            page = values[pages[number], kv_head]
            at = address(scores) + (number - first) * PAGE * 4
            n_tokens = min(PAGE, last - number * PAGE + 1)
            mix_page(n, page, (at, address(page), address(part), address(decays),
                               n_tokens, width))  # fmt: skip
            for j in range(LANES):
                decays[j] = np.float32(1)


@jitted
def states(buffer, head_dim):
    """A buffer's parts: a chunk's state, the state of all chunks, and the factors of a fold."""
    base, words = QUERIES * (head_dim + ROW), state_words(head_dim)
    ends = base + 2 * words
    return buffer[base : base + words], buffer[base + words : ends], buffer[ends : ends + 2 * LANES]


@jitted
def first_seen(position, scoring):
    """The first position that a row sees; below 0 where its window reaches further back."""
    window, is_chunked = scoring[2], scoring[4]
    if window == 0:
        return np.int64(0)
    return position // window * window if is_chunked else position - window + 1


@jitted
def visible_pages(tile, positions, scoring):
    """The pages (first, end) that some row of a tile sees."""
    first, last = positions[tile[0]], positions[tile[0] + tile[1] - 1]
    return max(0, first_seen(first, scoring)) // PAGE, last // PAGE + 1


@jitted
def attend_tile(qkv, tile, heads, span, positions, pages, keys, values, head_dim, scoring, buffer):
    """Computes in the buffer the state of a tile's rows, `tile` = (first row, rows, sequence), and
    of query heads, `heads` = (first, count, kv head), over the pages `span` = (first, end)."""
    n = tile[1] * heads[1]
    part, whole, factors = states(buffer, head_dim)
    _read_queries(qkv, tile[0], n, heads, positions, head_dim, scoring, buffer)
    begin_state(whole, padded(head_dim))
    for first in range(span[0] // CHUNK * CHUNK, span[1], CHUNK):
        chunk = (max(first, span[0]), min(first + CHUNK, span[1]))
        _read_chunk(n, chunk, tile[0], heads, positions, pages[tile[2]], keys, values, head_dim,
                    scoring, buffer, part)  # fmt: skip
        fold(n, whole, part, factors, padded(head_dim))


@jitted
def write_rows(tile, heads, head_dim, sinks, whole, out):
    """Writes the rows of a tile from their state over all that they see."""
    width = padded(head_dim)
    for i in range(tile[1] * heads[1]):
        row, head = tile[0] + i // heads[1], heads[0] + i % heads[1]
        total = whole[QUERIES * width + LANES + i]
        share = np.float32(1) / total
        if sinks.size > 0:
            best = max(whole[QUERIES * width + i], sinks[head])
            worth = exp_f32(whole[QUERIES * width + i] - best)
            share = worth / (total * worth + exp_f32(sinks[head] - best))
        sums, target = whole[i * width :], out[row, head * head_dim : (head + 1) * head_dim]
        for d in range(head_dim):
            target[d] = sums[d] * share
