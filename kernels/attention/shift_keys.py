"""Moves keys and values to earlier positions of their sequence, and rotates the keys to match.

With rotary positions a key depends on its position by a rotation alone: rotated back by the
distance it moves it is the key of its new position, but for the rounding of its page.
"""

from __future__ import annotations

import numpy as np

from kernels.attention.kv_pages import PAGE, copy_key, copy_value, get_key, padded, put_key
from kernels.attention.rope import rope_table
from kernels.emit.intrinsics import fma
from kernels.emit.jit import jitted, kernel
from kernels.team import N_THREADS, claim, region


@jitted
def _rotate_back(key, cosine, sine):
    """Rotates a key (head_dim,) in place: pair j of n is the values j and j + n."""
    half = cosine.size
    for j in range(half):
        a, b = key[j], key[j + half]
        key[j] = fma(a, cosine[j], b * sine[j])
        key[j + half] = fma(b, cosine[j], -a * sine[j])


@jitted
def move_of(position, n_keep, n_drop, from_pages, to_pages):
    """The token that comes to a position: (whether it keeps it, its page and slot before, its page
    and slot after); the page after is -1 where there is nothing to move."""
    is_kept = position < n_keep
    origin = position if is_kept else position + n_drop
    source, target = from_pages[origin // PAGE], to_pages[position // PAGE]
    if source < 0 or (is_kept and source == target):
        target = np.int32(-1)
    return is_kept, source, origin % PAGE, target, position % PAGE


@region
def _shift_heads(thread, team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after,
                 cosines, sines, buffers):  # fmt: skip
    n_kv_heads, head_dim, key = keys.shape[2], buffers.shape[1], buffers[thread]
    width = padded(head_dim)
    while True:
        item = claim(team, 1)
        if item >= keys.shape[0] * n_kv_heads:
            return
        layer, head = item // n_kv_heads, item % n_kv_heads
        # Upwards: a slot is read before a later round of the loop writes it.
        for position in range(n_keep // PAGE * PAGE, n_after):
            is_kept, source, old, target, new = move_of(
                position, n_keep, n_drop, from_pages, to_pages
            )
            if target < 0:
                continue
            key_from, key_to = keys[layer, source, head], keys[layer, target, head]
            if is_kept:
                copy_key(key_from, old, key_to, new, head_dim)
            else:
                get_key(key_from, old, key)
                _rotate_back(key, cosines[layer], sines[layer])
                put_key(key_to, new, key)
            copy_value(values[layer, source, head], old, values[layer, target, head], new, width)


@kernel
def _shift_keys(team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, cosines, sines,
                buffers):  # fmt: skip
    _shift_heads(team, (team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, cosines,
                        sines, buffers))  # fmt: skip


def shift_keys(
    team: np.ndarray, keys: np.ndarray, values: np.ndarray, from_pages: np.ndarray,
    to_pages: np.ndarray, n_keep: int, n_drop: int, n_after: int, inv_freq: np.ndarray,
    head_dim: int,
) -> None:  # fmt: skip
    """Moves the tokens from position n_keep + n_drop on, in all layers, to n_keep .. n_after - 1.

    keys, values are KvPages; from_pages and to_pages int32 are the sequence's pages before and
    after. A page of to_pages is the page at the same index of from_pages, or up to n_drop // PAGE
    behind it, or a page that is not in from_pages; tokens of pages that are -1 are gone, before or
    after. Kept tokens that share a page with moved ones are copied where that page changes.
    inv_freq (n_layers, rotary_dim / 2) float64 is the angle each pair of a layer rotates by per
    position.
    """
    cosines, sines = np.empty((2, *inv_freq.shape), np.float32)
    distance = np.array([n_drop], np.int32)
    for layer, angles in enumerate(inv_freq):
        rope_table(distance, angles, 1.0, cosines[layer : layer + 1], sines[layer : layer + 1])
    buffers = np.empty((team[N_THREADS // 8], head_dim), np.float32)
    _shift_keys(team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, cosines,
                sines, buffers)  # fmt: skip
