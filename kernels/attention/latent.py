"""Keys and values of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): of a
token and layer one row for all heads, its compressed key and value and, after it, the part of its
key that is rotated. The row is the key of every head, and its beginning the value.

Rotary pairs lie side by side, (2j, 2j + 1), as the models have them.
"""

from __future__ import annotations

import numpy as np

from kernels.arrays import aligned
from kernels.attention.kv_pages import (
    PAGE,
    WORDS,
    KvPages,
    copy_value,
    get_value,
    padded,
    page_words,
    put_value,
)
from kernels.attention.rope import rope_table
from kernels.attention.shift_keys import move_of
from kernels.emit.intrinsics import fma
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.squares import sum_of_squares
from kernels.team import N_THREADS, claim, region

ROWS = 16  # rows a thread takes at once


def latent_page_bytes(kind: str, n_layers: int, width: int) -> int:
    """Bytes of one page over all layers; `width` are the values of a row."""
    return n_layers * page_words(kind, width)[1] * WORDS[kind].itemsize


def latent_pages(
    kind: str, n_layers: int, n_pages: int, width: int, *, has_heads: bool = True
) -> KvPages:
    """Returns pages of zeros: one row for all heads, in place of values, and no keys; none of a
    rank without heads."""
    n = int(has_heads)
    return KvPages(
        aligned((n_layers, n_pages, n, 0), WORDS[kind]),
        aligned((n_layers, n_pages, n, page_words(kind, width)[1]), WORDS[kind]),
    )


@jitted
def turn_pairs(x, cosine, sine, sign):
    """Rotates pairs (2j, 2j + 1) of x in place; the other way round where sign is -1."""
    for j in range(cosine.size):
        a, b, s = x[2 * j], x[2 * j + 1], sign * sine[j]
        x[2 * j] = fma(a, cosine[j], -b * s)
        x[2 * j + 1] = fma(b, cosine[j], a * s)


@region
def _store_rows(thread, team, x, columns, n_rows, norm, epsilon, cosines, sines, positions,
                row_pages, pages):  # fmt: skip
    rank, one = norm.size, np.float32(1)
    begin, end = columns
    width = padded(end - begin)
    while True:
        first = claim(team, ROWS)
        if first >= n_rows:
            return
        for t in range(first, min(first + ROWS, n_rows)):
            row = x[t, begin:end]
            latent = row[:rank]
            mean = sum_of_squares(latent) / np.float32(rank)
            factor = one / np.sqrt(mean + epsilon)
            for d in range(rank):
                latent[d] = latent[d] * factor * norm[d]
            turn_pairs(row[rank:], cosines[t], sines[t], one)
            put_value(pages[row_pages[t], 0], positions[t] % PAGE, row, width)


@kernel
def _store_latents(team, x, columns, n_rows, norm, epsilon, cosines, sines, positions, row_pages,
                   pages):  # fmt: skip
    _store_rows(team, (team, x, columns, n_rows, norm, epsilon, cosines, sines, positions,
                       row_pages, pages))  # fmt: skip


def store_latents(
    team: np.ndarray, x: np.ndarray, columns: tuple[int, int], n_rows: int, norm: np.ndarray,
    epsilon: float, cosines: np.ndarray, sines: np.ndarray, positions: np.ndarray,
    row_pages: np.ndarray, pages: np.ndarray,
) -> None:  # fmt: skip
    """Norms and rotates the columns (first, end) of x (T, ...) float32 in place, rank + rotated of
    them, and writes them to one layer's pages. norm (rank,); cosines and sines (T, rotated / 2);
    positions and row_pages (T,) int32."""
    launch(_store_latents, team, x, columns, n_rows, norm, np.float32(epsilon), cosines, sines,
           positions, row_pages, pages)  # fmt: skip


@region
def _shift_layers(thread, team, pages, from_pages, to_pages, n_keep, n_drop, n_after, rank, cosine,
                  sine, buffers):  # fmt: skip
    row = buffers[thread]
    while True:
        layer = claim(team, 1)
        if layer >= pages.shape[0]:
            return
        # Upwards: a slot is read before a later round of the loop writes it.
        for position in range(n_keep // PAGE * PAGE, n_after):
            is_kept, source, old, target, new = move_of(
                position, n_keep, n_drop, from_pages, to_pages
            )
            if target < 0:
                continue
            before, after = pages[layer, source, 0], pages[layer, target, 0]
            if is_kept:
                copy_value(before, old, after, new, row.size)
            else:
                get_value(before, old, row, row.size)
                turn_pairs(row[rank:], cosine, sine, np.float32(-1))
                put_value(after, new, row, row.size)


@kernel
def _shift_latents(team, pages, from_pages, to_pages, n_keep, n_drop, n_after, rank, cosine, sine,
                   buffers):  # fmt: skip
    _shift_layers(team, (team, pages, from_pages, to_pages, n_keep, n_drop, n_after, rank, cosine,
                         sine, buffers))  # fmt: skip


def shift_latents(
    team: np.ndarray, pages: np.ndarray, from_pages: np.ndarray, to_pages: np.ndarray, n_keep: int,
    n_drop: int, n_after: int, rank: int, width: int, inv_freq: np.ndarray,
) -> None:  # fmt: skip
    """Moves rows as shift_keys does keys: `pages` are those of all layers, inv_freq (rotated / 2,)
    float64 the angle each pair rotates by per position; rows of `width` values are rotated from
    `rank` on."""
    cosines, sines = np.empty((2, 1, len(inv_freq)), np.float32)
    rope_table(np.array([n_drop], np.int32), inv_freq, 1.0, cosines, sines)
    buffers = np.empty((team[N_THREADS // 8], padded(width)), np.float32)
    _shift_latents(team, pages, from_pages, to_pages, n_keep, n_drop, n_after, rank, cosines[0],
                   sines[0], buffers)  # fmt: skip
