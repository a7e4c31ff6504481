"""Gated delta nets (Yang et al., arXiv:2412.06464): attention whose memory is a matrix for each
head, which each token makes fade and corrects.

Rows are computed one after the other, and each column of a matrix by itself: a row's result depends
on the tokens of its sequence only, however they are cut into steps and shared among threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import address, f32_bits, store_i64
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.recurrent.gates import sigmoid, softplus
from kernels.recurrent.states import DeltaStates, Slots
from kernels.recurrent.vectors import LANES, WIDTHS, delta_step, last_delta_step, recall
from kernels.squares import sum_of_squares
from kernels.team import claim, region, scratch_of

WIDE = WIDTHS[0] * LANES


class DeltaWeights(NamedTuple):
    """A layer's numbers for each value head, and its norm: arrays of float32."""

    decay: np.ndarray  # (n_value_heads,): below zero
    shift: np.ndarray  # (n_value_heads,)
    norm: np.ndarray  # (value_dim,)


@jitted
def _copy_columns(source, target, first, end):
    for i in range(source.shape[0]):
        for j in range(first, end):
            target[i, j] = source[i, j]


@jitted
def _clear_columns(target, first, end):
    for i in range(target.shape[0]):
        for j in range(first, end):
            target[i, j] = np.float32(0)


@jitted
def _store_factors(x, rows, head, at, weights, factors):
    """Writes decay and beta of each of a sequence's rows, float32, to address `factors` on."""
    _, start, end = rows
    beta, alpha = at[3:]
    for row in range(start, end):
        decay = f32_bits(exp_f32(weights[0][head] * softplus(x[row, alpha] + weights[1][head])))
        written = f32_bits(sigmoid(x[row, beta]))
        both = (np.int64(decay) & 0xFFFFFFFF) | (np.int64(written) << 32)
        store_i64(factors + (row - start) * 8, both)


@jitted
def _run_columns(x, rows, is_first, head, at, columns, matrices, slots, factors, known):
    """Takes some columns of a head's state through a sequence's rows, whose values become results.
    `at` are the places of query, key, value, beta and alpha in a row; `factors` and `known` are
    addresses, of decays and betas, and of working space for WIDE numbers."""
    s, start, end = rows
    query, key, value = at[:3]
    first, n = columns
    key_dim, row_bytes = matrices.shape[2], matrices.shape[3] * 4
    new = matrices[slots[1][s], head]
    old = matrices[slots[0][s], head]
    if is_first:
        _clear_columns(new, first, first + n * LANES)
        old = new
    stride = x.shape[1] * 4
    base = address(x) + start * stride
    step = (address(old) + first * 4, address(new) + first * 4, row_bytes, base + key * 4,
            base + query * 4, base + (value + first) * 4, base + stride + key * 4, key_dim,
            factors, known)  # fmt: skip
    recall(n, step)
    for row in range(start, end):
        if row + 1 < end:
            delta_step(n, step)
        else:
            last_delta_step(n, step)
        if slots[2][row] >= 0:
            _copy_columns(new, matrices[slots[2][row], head], first, first + n * LANES)
        step = (step[1], step[1], row_bytes, step[3] + stride, step[4] + stride, step[5] + stride,
                step[6] + stride, key_dim, step[8] + 8, known)  # fmt: skip


@jitted
def _gated_norm(result, gate, norm, epsilon, out):
    """out = norm(result) * silu(gate), of one head."""
    mean = sum_of_squares(result) / np.float32(result.size)
    factor = np.float32(1) / np.sqrt(mean + epsilon)
    for i in range(out.size):
        g = gate[i]
        out[i] = result[i] * factor * norm[i] * (g / (np.float32(1) + exp_f32(-g)))


@region
def _run_heads(thread, team, x, starts, positions, slots, weights, matrices, heads, dims, bundle,
               pairs_gates, epsilon, out):  # fmt: skip
    n_key_heads, n_value_heads = heads
    key_dim, value_dim = dims
    shared = n_value_heads // n_key_heads
    values = 2 * n_key_heads * key_dim
    gates = values + n_value_heads * value_dim
    betas = gates + n_value_heads * value_dim
    known = scratch_of(team, thread)
    factors = known + WIDE * 4
    while True:
        item = claim(team, 1)
        if item >= n_value_heads * (starts.size - 1):
            return
        s, head = item // n_value_heads, item % n_value_heads
        start, end = starts[s], starts[s + 1]
        key_head = head // (bundle * shared) * bundle + head % bundle
        value = values + head * value_dim
        beta, alpha = betas + head, betas + n_value_heads + head
        if pairs_gates:
            beta += key_head * shared
            alpha = beta + shared
        at = (key_head * key_dim, (n_key_heads + key_head) * key_dim, value, beta, alpha)
        _store_factors(x, (s, start, end), head, at, weights, factors)
        first = 0
        while first < value_dim:
            n = WIDTHS[0] if value_dim - first >= WIDE else 1
            _run_columns(x, (s, start, end), positions[start] == 0, head, at, (first, n), matrices,
                         slots, factors, known)  # fmt: skip
            first += n * LANES
        gate = gates + head * value_dim
        for row in range(start, end):
            _gated_norm(x[row, value : value + value_dim], x[row, gate : gate + value_dim],
                        weights[2], epsilon,
                        out[row, head * value_dim : (head + 1) * value_dim])  # fmt: skip


@kernel
def _delta_net(team, x, starts, positions, slots, weights, matrices, heads, dims, bundle,
               pairs_gates, epsilon, out):  # fmt: skip
    _run_heads(team, (team, x, starts, positions, slots, weights, matrices, heads, dims, bundle,
                      pairs_gates, epsilon, out))  # fmt: skip


def delta_net(
    team: np.ndarray, x: np.ndarray, starts: np.ndarray, positions: np.ndarray, slots: Slots,
    weights: DeltaWeights, states: DeltaStates, layer: int, bundle: int, pairs_gates: bool,
    epsilon: float, out: np.ndarray,
) -> None:  # fmt: skip
    """Takes every sequence's state through its rows, and writes their gated results to out (T,
    value heads * value_dim or wider).

    x (T, ...) float32, whose rows lie one after the other, holds queries, keys and values as
    `convolution` leaves them, then the gates of all value heads, a beta and an alpha of each: first
    all betas, or with `pairs_gates`, in bundles of 1, those of a key head and their alphas. Values
    are overwritten. Value heads come in bundles: the first ones of `bundle` neighbouring key
    heads are followed by their second ones, and so on. key_dim is even, value_dim a multiple of
    LANES.
    """
    launch(_delta_net, team, x, starts, positions, tuple(slots), tuple(weights),
           states.matrices[layer], states.heads, states.dims, bundle, pairs_gates,
           np.float32(epsilon), out)  # fmt: skip
