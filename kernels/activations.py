"""Activation functions, whose results are a matmul's input."""

from __future__ import annotations

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.jit import jitted, kernel
from kernels.gates import Gate
from kernels.prepare import claim_rows, lay_out
from kernels.program import launch
from kernels.team import region
from kernels.weights.layout import Activations, Needs

CLAMPED, GELU = int(Gate.CLAMPED), int(Gate.GELU)
LIMIT, SHARPNESS = np.float32(7), np.float32(1.702)
TANH_SCALE, TANH_CUBE = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi)


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


@kernel
def _add_bias(x, n_rows, bias):
    for t in range(n_rows):
        row = x[t]
        for i in range(bias.size):
            row[i] += bias[i]


def clear(x: np.ndarray) -> None:
    """Makes an array (T, n) zero."""
    launch(_clear, x)


def gather_rows(x: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """out[:n] = x[rows]: x (T, dim) float32, rows (n,) int32, all below T."""
    launch(_gather_rows, x, rows, out)


def add_bias(x: np.ndarray, n_rows: int, bias: np.ndarray) -> None:
    """x[:n_rows, :n] += bias: x (R, n or wider) float32, bias (n,) float32."""
    launch(_add_bias, x, n_rows, bias)


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
def _swiglu_rows(thread, team, gate_up, a, n_tokens, needs, gate):
    hidden = a[0].shape[1]
    while True:
        first, end = claim_rows(team, n_tokens, (0, n_tokens), needs)
        for t in range(first, end):
            out = a[0][t]
            gated_row(gate_up[t, :hidden], gate_up[t, hidden : 2 * hidden], gate, out)
            lay_out(a, out, t, n_tokens, needs)
        if first == end:
            return


@kernel
def _swiglu(team, gate_up, a, n_tokens, needs, gate):
    _swiglu_rows(team, (team, gate_up, a, n_tokens, needs, gate))


def swiglu(
    team: np.ndarray, gate_up: np.ndarray, a: Activations, n_tokens: int, needs: Needs,
    gate: int = Gate.SILU,
) -> None:  # fmt: skip
    """a (T, hidden) = silu(gate) * up, or with another function of the gate, where gate_up (T, 2 *
    hidden or wider) holds both side by side."""
    launch(_swiglu, team, gate_up, tuple(a), n_tokens, needs, int(gate))
