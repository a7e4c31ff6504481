"""Keys and values move to earlier positions of their sequence, and keys are turned to match.

Rotary positions make a key depend on where it stands by a rotation alone, so that a turn back by
the distance it moves makes it the key of its new position, but for the rounding to a half float.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.attention import PAGE
from kernels.intrinsics import f16_to_f32, f32_to_f16
from kernels.jit import jitted, kernel
from kernels.team import claim, region


@jitted
def _copy(source, source_slot, target, target_slot, n_rows):
    """A token's column of a page (n_rows, 32)."""
    for d in range(n_rows):
        target[d * PAGE + target_slot] = source[d * PAGE + source_slot]


@jitted
def _turn(source, source_slot, target, target_slot, cosine, sine):
    """The same, turned back: pair j is the values j and j + head_dim / 2."""
    half = cosine.size
    for j in range(half):
        a = f16_to_f32(source[j * PAGE + source_slot])
        b = f16_to_f32(source[(j + half) * PAGE + source_slot])
        target[j * PAGE + target_slot] = f32_to_f16(a * cosine[j] + b * sine[j])
        target[(j + half) * PAGE + target_slot] = f32_to_f16(b * cosine[j] - a * sine[j])


@region
def _shift_heads(thread, team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after,
                 cosine, sine):  # fmt: skip
    n_kv_heads, width = keys.shape[2], values.shape[3] // PAGE
    head_dim = keys.shape[3] // PAGE
    while True:
        item = claim(team, 1)
        if item >= keys.shape[0] * n_kv_heads:
            return
        layer, head = item // n_kv_heads, item % n_kv_heads
        # Upwards: a place is read before a later turn of the loop writes it.
        for position in range(n_keep // PAGE * PAGE, n_after):
            is_kept = position < n_keep
            origin = position if is_kept else position + n_drop
            source, target = from_pages[origin // PAGE], to_pages[position // PAGE]
            old, new = origin % PAGE, position % PAGE
            if is_kept and source == target:
                continue
            if is_kept:
                _copy(keys[layer, source, head], old, keys[layer, target, head], new, head_dim)
            else:
                _turn(keys[layer, source, head], old, keys[layer, target, head], new, cosine, sine)
            value_from, value_to = values[layer, source, head], values[layer, target, head]
            for d in range(width):
                value_to[new * width + d] = value_from[old * width + d]


@kernel
def _shift_keys(team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, inv_freq):
    cosine = np.empty(inv_freq.size, np.float32)
    sine = np.empty(inv_freq.size, np.float32)
    for j in range(inv_freq.size):
        angle = n_drop * inv_freq[j]
        cosine[j], sine[j] = math.cos(angle), math.sin(angle)
    _shift_heads(team, (team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, cosine,
                        sine))  # fmt: skip


def shift_keys(
    team: np.ndarray, keys: np.ndarray, values: np.ndarray, from_pages: np.ndarray,
    to_pages: np.ndarray, n_keep: int, n_drop: int, n_after: int, inv_freq: np.ndarray,
) -> None:  # fmt: skip
    """Moves the tokens from position n_keep + n_drop on, in all layers, to n_keep .. n_after - 1.

    keys, values are KvPages; from_pages and to_pages int32 are the sequence's pages before and
    after, a page of to_pages being the one at the same place of from_pages or none of them;
    kept tokens that share a page with moved ones are copied where that page changes. inv_freq
    (head_dim / 2,) float64 is the angle each pair turns by per position.
    """
    _shift_keys(team, keys, values, from_pages, to_pages, n_keep, n_drop, n_after, inv_freq)
