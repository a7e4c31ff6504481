"""The gates of attention: they come with the queries, head by head, and weigh its result."""

from __future__ import annotations

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.jit import kernel
from kernels.program import launch
from kernels.team import claim, region


@region
def _part_rows(thread, team, qkv, n_tokens, heads, head_dim, gates):
    n_heads, n_kv_heads = heads
    while True:
        row = claim(team, 1)
        if row >= n_tokens:
            return
        x, gate = qkv[row], gates[row]
        for head in range(n_heads):  # upwards: nothing is overwritten before it is read
            for i in range(head_dim):
                gate[head * head_dim + i] = x[(2 * head + 1) * head_dim + i]
                x[head * head_dim + i] = x[2 * head * head_dim + i]
        for i in range(2 * n_kv_heads * head_dim):
            x[n_heads * head_dim + i] = x[2 * n_heads * head_dim + i]


@kernel
def _part(team, qkv, n_tokens, heads, head_dim, gates):
    _part_rows(team, (team, qkv, n_tokens, heads, head_dim, gates))


def part_gates(
    team: np.ndarray, qkv: np.ndarray, n_tokens: int, n_heads: int, n_kv_heads: int, head_dim: int,
    gates: np.ndarray,
) -> None:  # fmt: skip
    """Moves the gates that stand after each head's queries in qkv (T, ...) to gates (T, n_heads *
    head_dim), so that queries, keys and values are side by side: float32."""
    launch(_part, team, qkv, n_tokens, (n_heads, n_kv_heads), head_dim, gates)


@region
def _apply_rows(thread, team, gates, n_tokens, width, out):
    while True:
        row = claim(team, 1)
        if row >= n_tokens:
            return
        gate, result = gates[row, :width], out[row, :width]
        for i in range(width):
            result[i] = result[i] / (np.float32(1) + exp_f32(-gate[i]))


@kernel
def _apply(team, gates, n_tokens, width, out):
    _apply_rows(team, (team, gates, n_tokens, width, out))


def apply_gates(
    team: np.ndarray, gates: np.ndarray, n_tokens: int, width: int, out: np.ndarray
) -> None:  # fmt: skip
    """out[:, :width] *= sigmoid(gates[:, :width]), of n_tokens rows of float32."""
    launch(_apply, team, gates, n_tokens, width, out)
