"""Norms of queries, and of keys, over all heads together, whichever ranks hold them.

A row's mean squares are sums over heads. Each rank adds up those of its own heads as integers, all
ranks add up theirs, and every rank scales its heads by the same factors: one node or many give the
same bits. The sum of a head's squares is cut into three numbers of falling units, so that small
sums keep as many digits as large ones.
"""

from __future__ import annotations

import numpy as np

from kernels.emit.jit import jitted, kernel
from kernels.matmul.sums import QUANTUM, FixedSums
from kernels.program import launch
from kernels.squares import sum_of_squares
from kernels.team import claim, region
from kernels.weights.layout import GROUP

COARSE = np.float64(2.0**8)  # first units in 1; a sum of them that fits 32 bits is below 2^23
FINER = np.float64(2.0**24)  # units of a level in one of the level before
LEVELS = 3  # of queries; as many of keys follow
LIMIT = np.float32(2.0**22)  # of a mean square; a larger one is no number
NO_NUMBER = np.int32(-(1 << 31))


@jitted
def _add_heads(row, head_dim, n_values):
    """The mean squares of a row's heads, each as its part of one over n_values, added up: (sums in
    units of falling size, int64 each, and whether all are numbers)."""
    first, second, third = np.int64(0), np.int64(0), np.int64(0)
    is_sound = True
    for at in range(0, row.size, head_dim):
        mean = sum_of_squares(row[at : at + head_dim]) / np.float32(n_values)
        if mean < LIMIT:
            left = np.float64(mean) * COARSE
            whole = np.rint(left)
            first += np.int64(whole)
            left = (left - whole) * FINER
            whole = np.rint(left)
            second += np.int64(whole)
            third += np.int64(np.rint((left - whole) * FINER))
        else:
            is_sound = False
    return first, second, third, is_sound


@jitted
def _write(value, is_sound, low, high, at):
    """Writes a sum as FixedSums hold it; returns whether it needs its upper half."""
    low[at] = np.int32(value & 0xFFFFFFFF)
    high[at] = np.int32(value >> 32) if is_sound else NO_NUMBER
    return not is_sound or np.int64(low[at]) != value


@region
def _squares_of_rows(thread, team, qkv, n_tokens, heads, head_dim, sizes, out):
    low, high, wide = out
    n_q, n_k = heads[0] * head_dim, heads[1] * head_dim
    while True:
        t = claim(team, 1)
        if t >= n_tokens:
            return
        is_wide = False
        for which in range(2):
            begin, end = (0, n_q) if which == 0 else (n_q, n_q + n_k)
            first, second, third, is_sound = _add_heads(qkv[t, begin:end], head_dim, sizes[which])
            at = LEVELS * which
            is_wide |= _write(first, is_sound, low[t], high[t], at)
            is_wide |= _write(second, is_sound, low[t], high[t], at + 1)
            is_wide |= _write(third, is_sound, low[t], high[t], at + 2)
        for at in range(2 * LEVELS, low.shape[1]):
            high[t, at] = 0  # read with the others where the group is wide
        wide[t, 0] = is_wide


@kernel
def _head_squares(team, qkv, n_tokens, heads, head_dim, sizes, out):
    _squares_of_rows(team, (team, qkv, n_tokens, heads, head_dim, sizes, out))


@jitted
def _factor(totals, at, epsilon):
    """The factor of a norm, of the sums of all ranks from `at` on, as multiples of QUANTUM."""
    mean = np.float64(totals[at]) * (1 / COARSE)
    mean += np.float64(totals[at + 1]) * (1 / COARSE / FINER)
    mean += np.float64(totals[at + 2]) * (1 / COARSE / FINER / FINER)
    return np.float32(1) / np.sqrt(np.float32(mean * (1 / QUANTUM)) + epsilon)


@region
def _scale_rows(thread, team, qkv, n_tokens, totals, q_norm, k_norm, epsilon):
    while True:
        t = claim(team, 1)
        if t >= n_tokens:
            return
        factor = _factor(totals[t], 0, epsilon)
        for i in range(q_norm.size):
            qkv[t, i] = qkv[t, i] * factor * q_norm[i]
        factor = _factor(totals[t], LEVELS, epsilon)
        for i in range(k_norm.size):
            at = q_norm.size + i
            qkv[t, at] = qkv[t, at] * factor * k_norm[i]


@kernel
def _norm_heads(team, qkv, n_tokens, totals, q_norm, k_norm, epsilon):
    _scale_rows(team, (team, qkv, n_tokens, totals, q_norm, k_norm, epsilon))


def square_sums(max_tokens: int) -> FixedSums:
    """Returns buffers for `head_squares`: one group of columns."""
    assert 2 * LEVELS <= GROUP
    return FixedSums.zeros(max_tokens, GROUP)


def head_squares(
    team: np.ndarray, qkv: np.ndarray, n_tokens: int, heads: tuple[int, int], head_dim: int,
    sizes: tuple[int, int], out: FixedSums,
) -> None:  # fmt: skip
    """out (T, GROUP) = this rank's part of each row's mean squares. qkv (T, width) float32 begins
    with this rank's queries and keys, of `heads` = (query heads, key heads); `sizes` are the values
    of a row's queries and of its keys on all ranks."""
    launch(_head_squares, team, qkv, n_tokens, heads, head_dim, sizes, tuple(out))


def norm_heads(
    team: np.ndarray, qkv: np.ndarray, n_tokens: int, totals: np.ndarray, q_norm: np.ndarray,
    k_norm: np.ndarray, epsilon: float,
) -> None:  # fmt: skip
    """Norms queries and keys of qkv in place, by the sums of all ranks, totals (T, GROUP) float32.
    q_norm and k_norm are the weights of this rank's heads, side by side, float32."""
    launch(_norm_heads, team, qkv, n_tokens, totals, q_norm, k_norm, np.float32(epsilon))
