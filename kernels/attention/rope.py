"""The steps between the matmul of queries, keys and values and attention: biases, per-head norms,
rotary positions, and the writing of keys and values to their pages."""

from __future__ import annotations

import numpy as np

from kernels.attention.angles import cosine_and_sine
from kernels.attention.kv_pages import PAGE, padded, put_key, put_value
from kernels.emit.intrinsics import fma
from kernels.emit.jit import inlined, jitted, kernel
from kernels.norm_row import norm_row
from kernels.program import launch
from kernels.team import claim, region

ROWS = 32  # rows a thread takes at once: few enough to stay in the caches from head to head


@kernel
def rope_table(positions, inv_freq, magnitude, cosines, sines):
    """cosines, sines (T, rotary_dim / 2) float32 of position x frequency (float64 inside), times
    `magnitude` (YaRN's attention factor; 1 otherwise)."""
    for t in range(positions.size):
        for j in range(inv_freq.size):
            cosine, sine = cosine_and_sine(positions[t] * inv_freq[j])
            cosines[t, j] = cosine * magnitude
            sines[t, j] = sine * magnitude


@jitted
def _rotate(head, bias, norm, how, cosine, sine):
    """Adds the bias to one head (head_dim,), normalises it and rotates its first rotary_dim values,
    all in place (Su et al., arXiv:2104.09864)."""
    if bias.size > 0:
        for d in range(head.size):
            head[d] += bias[d]
    if norm.size > 0:
        epsilon, is_centered = how
        norm_row(head, norm, epsilon, is_centered, head)
    half = cosine.size
    for j in range(half):
        a, b = head[j], head[j + half]
        head[j] = fma(a, cosine[j], -b * sine[j])
        head[j + half] = fma(b, cosine[j], a * sine[j])


@inlined
def _of_head(norm, head, head_dim):
    """The weights of one head's norm: its own, or those of all heads."""
    return norm[head * head_dim : (head + 1) * head_dim] if norm.size > head_dim else norm


@region
def _rotate_groups(thread, team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, how,
                   cosines, sines, positions, row_pages, keys, values):  # fmt: skip
    n_kv_heads, n_blocks = keys.shape[1], -(-n_tokens // ROWS)
    k_start, v_start = n_kv_heads * group * head_dim, n_kv_heads * (group + 1) * head_dim
    width = padded(head_dim)
    while True:
        # By head and ROWS rows: neighbouring tokens share cache lines of a page of keys.
        item = claim(team, 1)
        if item >= n_blocks * n_kv_heads:
            return
        kv_head, first = item % n_kv_heads, item // n_kv_heads * ROWS
        for t in range(first, min(first + ROWS, n_tokens)):
            for head in range(kv_head * group, (kv_head + 1) * group):
                at = head * head_dim
                _rotate(qkv[t, at : at + head_dim], bias[at : at + head_dim],
                      _of_head(q_norm, head, head_dim), how, cosines[t], sines[t])  # fmt: skip
            at = k_start + kv_head * head_dim
            key = qkv[t, at : at + head_dim]
            _rotate(key, bias[at : at + head_dim], _of_head(k_norm, kv_head, head_dim), how,
                  cosines[t], sines[t])  # fmt: skip
            page, slot = row_pages[t], positions[t] % PAGE
            put_key(keys[page, kv_head], slot, key)
            at = v_start + kv_head * head_dim
            value, value_bias = qkv[t, at : at + head_dim], bias[at : at + head_dim]
            for d in range(value_bias.size):
                value[d] += value_bias[d]
            put_value(values[page, kv_head], slot, value, width)


@kernel
def _rotate_and_store(team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, how,
                      cosines, sines, positions, row_pages, keys, values):  # fmt: skip
    _rotate_groups(team, (team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, how,
                          cosines, sines, positions, row_pages, keys, values))  # fmt: skip


def rotate_and_store(
    team: np.ndarray, qkv: np.ndarray, n_tokens: int, group: int, head_dim: int,
    bias: np.ndarray, q_norm: np.ndarray, k_norm: np.ndarray, epsilon: float,
    cosines: np.ndarray, sines: np.ndarray, positions: np.ndarray, row_pages: np.ndarray,
    keys: np.ndarray, values: np.ndarray, *, is_centered: bool = False,
) -> None:  # fmt: skip
    """Rotates queries and keys of qkv in place and writes keys and values to their pages.

    qkv (T, >= (n_heads + 2 n_kv_heads) * head_dim) float32 holds queries, keys, values side by
    side; bias (the same width or empty) float32; q_norm and k_norm float32 (head_dim,), or of each
    head after the other, or empty, take the mean off first where they are centered; row_pages (T,)
    int32 is the page of each row's position; keys, values one layer of KvPages.
    """
    launch(_rotate_and_store, team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm,
           (np.float32(epsilon), is_centered), cosines, sines, positions, row_pages, keys,
           values)  # fmt: skip
