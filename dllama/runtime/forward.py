"""The forward pass of a Llama-family model: what a paper says, over whatever share a rank holds.

Knows no rank and no socket: shapes tell how many heads and columns are here, and a Collective adds
up what the others have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.collective import Collective
from dllama.runtime.linear import Linear
from dllama.runtime.replays import Replays
from dllama.runtime.state import RunState
from dllama.runtime.weights import Layer, Weights
from dllama.step import PAGE_TOKENS, Step
from kernels.activations import add_rms_norm, prepare, swiglu
from kernels.attention.causal import attention as attend
from kernels.attention.rope import rope_table, rotate_and_store
from kernels.matmul.multiply import matmul
from kernels.weights.layout import Activations, Needs


@dataclass(frozen=True, slots=True)
class Rows:
    """A step as the kernels want it: contiguous int32 arrays, and each row's page."""

    n: int
    starts: np.ndarray  # (S + 1,)
    positions: np.ndarray  # (T,)
    pages: np.ndarray  # (S, max_pages)
    row_pages: np.ndarray  # (T,)


def forward(
    weights: Weights, step: Step, state: RunState, team: np.ndarray, comm: Collective,
    replays: Replays,
) -> np.ndarray:  # fmt: skip
    """This rank's slice of the logits of the rows step.logits_at: (R, local vocabulary or wider).

    state.x[:T] holds the embedded tokens and is used up; where the step asks for hidden states, it
    holds those of the last layer then. Raises PeerLost.
    """
    rows = place(weights, step, state, replays)
    x, out = state.x[: rows.n], state.partial[: rows.n]
    delta: np.ndarray | None = None

    def attention_half(layer: Layer, i: int) -> None:
        enter(team, weights, x, delta, layer.norm1, layer.qkv, state)
        attention(weights, layer, state.normed, rows, state, team, i)

    def feed_forward_half(layer: Layer, i: int) -> None:
        enter(team, weights, x, delta, layer.norm2, layer.gate_up, state)
        feed_forward(layer, state.normed, rows.n, state, team)

    n_wanted = len(step.logits_at)
    replays.begin(rows.n, len(rows.starts) - 1, n_wanted)
    for i, layer in enumerate(weights.layers):
        for half in (attention_half, feed_forward_half):
            replays.run(half, layer, i)
            delta = comm.all_reduce(out)
            if delta is not out and replays.is_few(rows.n):  # a replay looks where it looked before
                np.copyto(out, delta)
                delta = out
    if len(step.hidden_at) and delta is not None:
        x += delta[:, : x.shape[1]]
        delta = None
    gather(x, delta, step.logits_at, state)
    if n_wanted:
        replays.run(head, weights, n_wanted, state, team)
    return state.logits[:n_wanted]


def enter(
    team: np.ndarray, weights: Weights, x: np.ndarray, delta: np.ndarray | None, norm: np.ndarray,
    reader: Linear | None, state: RunState,
) -> None:  # fmt: skip
    """x += delta, what the half layer before brings; state.normed is the norm of that."""
    needs, n = Needs() if reader is None else reader.needs, len(x)
    add_rms_norm(team, x, delta, norm, weights.config.norm_epsilon, state.normed, n, needs)


def place(weights: Weights, step: Step, state: RunState, replays: Replays) -> Rows:
    """Finds each row's page and turns positions into angles."""
    n = step.n_tokens
    positions = np.ascontiguousarray(step.positions, np.int32)
    starts = np.ascontiguousarray(step.starts, np.int32)
    pages = np.ascontiguousarray(step.pages, np.int32)
    sequence = np.arange(len(starts) - 1)
    if len(sequence) < n:
        sequence = np.repeat(sequence, np.diff(starts))
    row_pages = np.ascontiguousarray(pages[sequence, positions // PAGE_TOKENS])
    rope_table(positions, weights.inv_freq, weights.rope_magnitude, state.cosines, state.sines)
    return Rows(n, *replays.settled(starts, positions, pages, row_pages))


def attention(
    weights: Weights, layer: Layer, normed: Activations, rows: Rows, state: RunState,
    team: np.ndarray, index: int,
) -> None:  # fmt: skip
    """This rank's heads' part of the layer's attention: state.partial (T, dim)."""
    out = state.partial[: rows.n]
    if layer.qkv is None or layer.wo is None:  # no heads here
        out[:] = 0
        return
    config, qkv = weights.config, state.qkv
    keys, values = state.kv.keys[index], state.kv.values[index]
    multiply(team, layer.qkv, normed, rows.n, qkv)
    rotate_and_store(
        team, qkv, rows.n, config.group_size, config.head_dim, layer.bias, layer.q_norm,
        layer.k_norm, config.norm_epsilon, state.cosines, state.sines, rows.positions,
        rows.row_pages, keys, values,
    )  # fmt: skip
    attend(
        team, qkv, rows.starts, state.tiles, config.group_size, rows.positions, rows.pages, keys,
        values, config.head_dim, state.rooms, state.own_mixed,
    )  # fmt: skip
    prepare(team, state.mixed, rows.n, layer.wo.needs)
    multiply(team, layer.wo, state.mixed, rows.n, out)


def feed_forward(
    layer: Layer, normed: Activations, n: int, state: RunState, team: np.ndarray
) -> None:
    """This rank's columns' part of w2(silu(w1 x) * w3 x): state.partial (T, dim)."""
    out = state.partial[:n]
    if layer.gate_up is None or layer.w2 is None:
        out[:] = 0
        return
    multiply(team, layer.gate_up, normed, n, state.gate_up)
    own = (layer.w2.first_own_col, layer.gate_up.out_dim // 2)
    swiglu(team, state.gate_up, state.hidden, n, layer.w2.needs, own)
    multiply(team, layer.w2, state.hidden, n, out)


def gather(x: np.ndarray, delta: np.ndarray | None, rows: np.ndarray, state: RunState) -> None:
    """The rows whose logits are wanted to state.last."""
    last = state.last[: len(rows)]
    last[:] = x[rows]
    if delta is not None:
        last += delta[rows, : last.shape[1]]


def head(weights: Weights, n: int, state: RunState, team: np.ndarray) -> None:
    """state.logits[:n], over this rank's part of the vocabulary, of state.last[:n]."""
    if weights.wcls is not None:
        enter(team, weights, state.last[:n], None, weights.norm, weights.wcls, state)
        multiply(team, weights.wcls, state.normed, n, state.logits)


def last_states(weights: Weights, x: np.ndarray) -> np.ndarray:
    """What the head would read of the last layer's states x (H, dim): (H, dim) float32."""
    mean_square = np.square(x, dtype=np.float64).mean(axis=1, keepdims=True)
    scale = 1.0 / np.sqrt(mean_square + weights.config.norm_epsilon)
    states: np.ndarray = (x * scale).astype(np.float32) * weights.norm
    return states


def multiply(team: np.ndarray, w: Linear, a: Activations, n: int, out: np.ndarray) -> None:
    """out[:n] = a @ w.T for all matrices of a Linear, side by side."""
    for column, part in w.parts:
        matmul(team, part, a, n, out, column)
