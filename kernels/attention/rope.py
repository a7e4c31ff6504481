"""The steps between the matmul of queries, keys and values and attention: biases, per-head norms,
rotary positions, and the writing of keys and values to their pages."""

from __future__ import annotations

import numpy as np

from kernels.attention.angles import cosine_and_sine
from kernels.attention.kv_pages import PAGE, padded, put_key, put_value
from kernels.emit.intrinsics import fma
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.squares import sum_of_squares
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
def _rotate(head, bias, norm, epsilon, cosine, sine):
    """Adds the bias to one head (head_dim,), normalises it and rotates its first rotary_dim values,
    all in place (Su et al., arXiv:2104.09864)."""
    if bias.size > 0:
        for d in range(head.size):
            head[d] += bias[d]
    if norm.size > 0:
        mean = sum_of_squares(head) / np.float32(head.size)
        factor = np.float32(1) / np.sqrt(mean + epsilon)
        for d in range(head.size):
            head[d] = head[d] * factor * norm[d]
    half = cosine.size
    for j in range(half):
        a, b = head[j], head[j + half]
        head[j] = fma(a, cosine[j], -b * sine[j])
        head[j + half] = fma(b, cosine[j], a * sine[j])


@region
def _rotate_groups(thread, team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, epsilon,
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
                _rotate(qkv[t, at : at + head_dim], bias[at : at + head_dim], q_norm, epsilon,
                      cosines[t], sines[t])  # fmt: skip
            at = k_start + kv_head * head_dim
            key = qkv[t, at : at + head_dim]
            _rotate(key, bias[at : at + head_dim], k_norm, epsilon, cosines[t], sines[t])
            page, slot = row_pages[t], positions[t] % PAGE
            put_key(keys[page, kv_head], slot, key)
            at = v_start + kv_head * head_dim
            value, value_bias = qkv[t, at : at + head_dim], bias[at : at + head_dim]
            for d in range(value_bias.size):
                value[d] += value_bias[d]
            put_value(values[page, kv_head], slot, value, width)


@kernel
def _rotate_and_store(team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, epsilon,
                      cosines, sines, positions, row_pages, keys, values):  # fmt: skip
    _rotate_groups(team, (team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm, epsilon,
                          cosines, sines, positions, row_pages, keys, values))  # fmt: skip


def rotate_and_store(
    team: np.ndarray, qkv: np.ndarray, n_tokens: int, group: int, head_dim: int,
    bias: np.ndarray, q_norm: np.ndarray, k_norm: np.ndarray, epsilon: float,
    cosines: np.ndarray, sines: np.ndarray, positions: np.ndarray, row_pages: np.ndarray,
    keys: np.ndarray, values: np.ndarray,
) -> None:  # fmt: skip
    """Rotates queries and keys of qkv in place and writes keys and values to their pages.

    qkv (T, >= (n_heads + 2 n_kv_heads) * head_dim) float32 holds queries, keys, values side by
    side; bias (the same width or empty), q_norm and k_norm (head_dim or empty) float32;
    row_pages (T,) int32 is the page of each row's position; keys, values one layer of KvPages.
    """
    launch(_rotate_and_store, team, qkv, n_tokens, group, head_dim, bias, q_norm, k_norm,
           np.float32(epsilon), cosines, sines, positions, row_pages, keys,
           values)  # fmt: skip
