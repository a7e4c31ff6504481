"""Norms and activation functions, whose results are a matmul's input."""

from __future__ import annotations

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.jit import jitted, kernel
from kernels.gates import Gate
from kernels.prepare import claim_rows, lay_out
from kernels.program import launch
from kernels.squares import sum_of_squares
from kernels.team import region
from kernels.weights.layout import Activations, Needs

CLAMPED, GELU = int(Gate.CLAMPED), int(Gate.GELU)
LIMIT, SHARPNESS = np.float32(7), np.float32(1.702)
TANH_SCALE, TANH_CUBE = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi)


@jitted
def _rms_norm_row(x, weight, epsilon, out):
    """out = weight * x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich, arXiv:1910.07467)."""
    mean = sum_of_squares(x) / np.float32(x.size)
    factor = np.float32(1) / np.sqrt(mean + epsilon)
    for i in range(x.size):
        out[i] = x[i] * factor * weight[i]


@jitted
def _add_row(row, delta, bias, after, epsilon):
    """row += delta + bias, or its norm where there are weights `after` for one. Leaves delta + bias
    in delta."""
    for i in range(bias.size):
        delta[i] += bias[i]
    if after.size > 0:
        mean = sum_of_squares(delta) / np.float32(delta.size)
        factor = np.float32(1) / np.sqrt(mean + epsilon)
        for i in range(row.size):
            row[i] += delta[i] * factor * after[i]
    else:
        for i in range(row.size):
            row[i] += delta[i]


@region
def _norm_rows(thread, team, x, delta, taken_in, before, epsilon, a, n_tokens, own, needs):
    bias, after = taken_in
    while True:
        first, end = claim_rows(team, n_tokens, own, needs)
        for t in range(first, end):
            row = x[t]
            if delta.shape[0] > 0:
                _add_row(row, delta[t, : row.size], bias, after, epsilon)
            if before.size > 0:
                _rms_norm_row(row, before, epsilon, a[0][t])
            else:
                for i in range(row.size):
                    a[0][t, i] = row[i]
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _add_rms_norm(team, x, delta, taken_in, before, epsilon, a, n_tokens, own, needs):
    _norm_rows(team, (team, x, delta, taken_in, before, epsilon, a, n_tokens, own, needs))


_NOTHING = np.zeros((0, 0), np.float32)
_NO_BIAS = np.zeros(0, np.float32)


def add_rms_norm(
    team: np.ndarray, x: np.ndarray, delta: np.ndarray | None, after: np.ndarray,
    before: np.ndarray, epsilon: float, a: Activations, n_tokens: int, needs: Needs,
    own: tuple[int, int] | None = None, bias: np.ndarray = _NO_BIAS,
) -> None:  # fmt: skip
    """x += norm(delta + bias), then a = norm(x), with root-mean-square norms of the weights `after`
    and `before` (dim,) float32; empty weights stand for no norm, and `bias` may be empty too.

    x and delta are (T, dim) float32; delta may be wider, or None for nothing to add. `own` =
    (first, end) are the rows that are computed, where they are not all. Where there is a bias,
    delta is overwritten.
    """
    launch(
        _add_rms_norm, team, x, _NOTHING if delta is None else delta, (bias, after), before,
        np.float32(epsilon), tuple(a), n_tokens, own or (0, n_tokens), needs,
    )  # fmt: skip


@kernel
def _clear(x):
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[t, i] = 0


@kernel
def _gather_rows(x, rows, out):
    for i in range(rows.size):
        row = x[rows[i]]
        for j in range(row.size):
            out[i, j] = row[j]


def clear(x: np.ndarray) -> None:
    """Makes an array (T, n) zero."""
    launch(_clear, x)


def gather_rows(x: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """out[:n] = x[rows]: x (T, dim) float32, rows (n,) int32, all below T."""
    launch(_gather_rows, x, rows, out)


@jitted
def swiglu_row(gate, up, out):
    """out = silu(gate) * up (Shazeer, arXiv:2002.05202)."""
    for i in range(out.size):
        g = gate[i]
        out[i] = g / (np.float32(1) + exp_f32(-g)) * up[i]


@jitted
def _geglu_row(gate, up, out):
    """out = gelu(gate) * up, by the approximation of GELU with tanh (Hendrycks & Gimpel,
    arXiv:1606.08415), of which (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))."""
    for i in range(out.size):
        g = gate[i]
        u = TANH_SCALE * (g + TANH_CUBE * (g * g * g))
        out[i] = g / (np.float32(1) + exp_f32(np.float32(-2) * u)) * up[i]


@jitted
def _clamped_row(gate, up, out):
    """out = g sigmoid(1.702 g) (u + 1), where g and u are gate and up cut off at LIMIT."""
    for i in range(out.size):
        g = LIMIT if gate[i] > LIMIT else gate[i]
        u = LIMIT if up[i] > LIMIT else -LIMIT if up[i] < -LIMIT else up[i]
        out[i] = g / (np.float32(1) + exp_f32(-SHARPNESS * g)) * (u + np.float32(1))


@jitted
def gated_row(gate, up, kind, out):
    """out = what a feed-forward's second product reads of its first, by the `Gate` kind."""
    if kind == CLAMPED:
        _clamped_row(gate, up, out)
    elif kind == GELU:
        _geglu_row(gate, up, out)
    else:
        swiglu_row(gate, up, out)


@region
def _swiglu_rows(thread, team, gate_up, a, own, n_tokens, needs, gate):
    start, hidden = own
    while True:
        first, end = claim_rows(team, n_tokens, (0, n_tokens), needs)
        for t in range(first, end):
            out = a[0][t, start : start + hidden]
            gated_row(gate_up[t, :hidden], gate_up[t, hidden : 2 * hidden], gate, out)
            lay_out(a, a[0][t], t, n_tokens, needs)
        if first == end:
            return


@kernel
def _swiglu(team, gate_up, a, own, n_tokens, needs, gate):
    _swiglu_rows(team, (team, gate_up, a, own, n_tokens, needs, gate))


def swiglu(
    team: np.ndarray, gate_up: np.ndarray, a: Activations, n_tokens: int, needs: Needs,
    own: tuple[int, int] | None = None, gate: int = Gate.SILU,
) -> None:  # fmt: skip
    """a = silu(gate) * up, or with another function of the gate, where gate_up (T, 2 * hidden or
    wider) holds both side by side.

    `own` = (first, count) are the columns of `a` that gate_up holds, where it does not hold all;
    the others stay as they are.
    """
    own = own or (0, a.rows.shape[1])
    launch(_swiglu, team, gate_up, tuple(a), own, n_tokens, needs, int(gate))
