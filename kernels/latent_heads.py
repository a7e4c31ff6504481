"""The rows of products with a matrix for each head, which lie head by head, and those of a step,
which lie row by row."""

from __future__ import annotations

import numpy as np

from kernels.attention.latent import turn_pairs
from kernels.emit.jit import kernel
from kernels.experts.slots import claim_tile, from_row
from kernels.prepare import lay_out
from kernels.program import launch
from kernels.team import claim, region
from kernels.weights.layout import Activations, Needs


@kernel
def _deal_heads(n_rows, n_heads, table):
    table[0, 0], table[0, 1] = n_heads, n_rows
    for head in range(n_heads):
        table[head + 1, 0] = head
        table[head + 1, 1], table[head + 1, 2] = head * n_rows, n_rows


def deal_heads(n_rows: int, n_heads: int, table: np.ndarray) -> None:
    """Fills the table (n_heads + 1, 3) int32 of products with a matrix for each head (see
    kernels/matmul/batches.py): row t of head h is the row h * n_rows + t."""
    launch(_deal_heads, n_rows, n_heads, table)


@region
def _gather_all(thread, team, x, head_dim, table, a, needs):
    batch, before, cols = np.int64(0), np.int64(0), a[0].shape[1]
    while True:
        batch, before, first, n_rows, start, end = claim_tile(team, table, batch, before, needs)
        if n_rows == 0:
            return
        part, at = from_row(a, first, cols), first // n_rows * head_dim
        for t in range(start, end):
            lay_out(part, x[t, at : at + cols], t, n_rows, needs)


@kernel
def _gather_heads(team, x, head_dim, table, a, needs):
    _gather_all(team, (team, x, head_dim, table, a, needs))


def gather_heads(
    team: np.ndarray, x: np.ndarray, head_dim: int, table: np.ndarray, a: Activations, needs: Needs
) -> None:
    """Lays out the first values of each head of x (T, n_heads * head_dim or wider), as many as `a`
    has columns, as the input of products by head. Writes no rows of `a`."""
    launch(_gather_heads, team, x, head_dim, table, tuple(a), needs)


@region
def _spread_rows(thread, team, values, n_rows, n_heads, value_dim, out):
    while True:
        t = claim(team, 1)
        if t >= n_rows:
            return
        for head in range(n_heads):
            source, at = values[head * n_rows + t], head * value_dim
            for d in range(value_dim):
                out[t, at + d] = source[d]


@kernel
def _spread_heads(team, values, n_rows, n_heads, value_dim, out):
    _spread_rows(team, (team, values, n_rows, n_heads, value_dim, out))


def spread_heads(
    team: np.ndarray, values: np.ndarray, n_rows: int, n_heads: int, value_dim: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """out (T, n_heads * value_dim or wider) = the values (n_heads * T, value_dim or wider), which
    lie head by head."""
    launch(_spread_heads, team, values, n_rows, n_heads, value_dim, out)


@region
def _join_rows(thread, team, q, head_dim, absorbed, n_rows, n_heads, rank, cosines, sines, out):
    width, half = out.shape[1] // n_heads, cosines.shape[1]
    while True:
        t = claim(team, 1)
        if t >= n_rows:
            return
        for head in range(n_heads):
            target = out[t, head * width : (head + 1) * width]
            source = absorbed[head * n_rows + t]
            for d in range(rank):
                target[d] = source[d]
            end = (head + 1) * head_dim
            turned = q[t, end - 2 * half : end]
            for d in range(2 * half):
                target[rank + d] = turned[d]
            for d in range(rank + 2 * half, width):
                target[d] = np.float32(0)
            turn_pairs(target[rank:], cosines[t], sines[t], np.float32(1))


@kernel
def _join_queries(team, q, head_dim, absorbed, n_rows, n_heads, rank, cosines, sines, out):
    _join_rows(team, (team, q, head_dim, absorbed, n_rows, n_heads, rank, cosines, sines, out))


def join_queries(
    team: np.ndarray, q: np.ndarray, head_dim: int, absorbed: np.ndarray, n_rows: int,
    n_heads: int, rank: int, cosines: np.ndarray, sines: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """out (T, n_heads * width) = the queries of each head against rows of pages: `absorbed`, row
    head * n_rows + t of (n_heads * T, rank or wider), then the end of the head's part of q
    (T, n_heads * head_dim or wider), rotated, then zeros."""
    launch(_join_queries, team, q, head_dim, absorbed, n_rows, n_heads, rank, cosines, sines, out)
