"""Norms of the residual stream, whose results are a matmul's input."""

from __future__ import annotations

import numpy as np

from kernels.emit.jit import jitted, kernel
from kernels.norm_row import norm_row
from kernels.prepare import claim_rows, lay_out
from kernels.program import launch
from kernels.squares import sum_of_squares
from kernels.team import region
from kernels.weights.layout import Activations, Needs


@jitted
def _add_row(row, delta, bias, after, epsilon, scale):
    """row += (delta + bias) * scale, or its norm where there are weights `after` for one. Leaves
    delta + bias in delta."""
    for i in range(bias.size):
        delta[i] += bias[i]
    if after.size > 0:
        mean = sum_of_squares(delta) / np.float32(delta.size)
        factor = np.float32(1) / np.sqrt(mean + epsilon)
        for i in range(row.size):
            row[i] += delta[i] * factor * after[i]
    else:
        for i in range(row.size):
            row[i] += delta[i] * scale


@region
def _norm_rows(thread, team, x, delta, taken_in, before, how, a, n_tokens, own, needs):
    bias, after, scale = taken_in
    epsilon, is_centered = how
    while True:
        first, end = claim_rows(team, n_tokens, own, needs)
        for t in range(first, end):
            row = x[t, : a[0].shape[1]]
            if delta.shape[0] > 0:
                _add_row(row, delta[t, : row.size], bias, after, epsilon, scale)
            if before.size > 0:
                norm_row(row, before, epsilon, is_centered, a[0][t, : row.size])
            else:
                for i in range(row.size):
                    a[0][t, i] = row[i]
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _add_norm(team, x, delta, taken_in, before, how, a, n_tokens, own, needs):
    _norm_rows(team, (team, x, delta, taken_in, before, how, a, n_tokens, own, needs))


_NOTHING = np.zeros((0, 0), np.float32)
_NO_BIAS = np.zeros(0, np.float32)


def add_norm(
    team: np.ndarray, x: np.ndarray, delta: np.ndarray | None, after: np.ndarray,
    before: np.ndarray, epsilon: float, a: Activations, n_tokens: int, needs: Needs,
    own: tuple[int, int] | None = None, bias: np.ndarray = _NO_BIAS, *, scale: float = 1.0,
    is_centered: bool = False,
) -> None:  # fmt: skip
    """x += norm(delta + bias), then a = norm(x), with norms of the weights `after` and `before`
    (dim,) float32; empty weights stand for no norm, and `bias` may be empty too. `before` may be
    followed by as many biases, which are added to the norm. What is added
    without a norm is multiplied by `scale`. Norms are of root mean squares; where it is centered,
    the second one is of what is left of x without its mean.

    x and delta are (T, dim) float32; both may be wider, and delta None for nothing to add. `own` =
    (first, end) are the rows that are computed, where they are not all. Where there is a bias,
    delta is overwritten.
    """
    launch(
        _add_norm, team, x, _NOTHING if delta is None else delta,
        (bias, after, np.float32(scale)), before, (np.float32(epsilon), is_centered), tuple(a),
        n_tokens, own or (0, n_tokens), needs,
    )  # fmt: skip
