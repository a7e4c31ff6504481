"""The causal convolution in front of a gated delta net, over each channel by itself, and the
lengths of queries and keys.

A channel's last inputs are kept for each sequence, its tail, so that a row's result depends on the
tokens of its sequence only and not on how they are cut into steps.
"""

from __future__ import annotations

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import fma
from kernels.emit.jit import inlined, jitted, kernel
from kernels.program import launch
from kernels.recurrent.states import DeltaStates, Slots
from kernels.squares import sum_of_squares
from kernels.team import claim, region

SMALLEST = np.float32(1e-6)  # added to a squared length


@inlined
def _input(x, row, start, hold, channels):
    """The inputs of some channels at a row, or before a sequence's first row of the step."""
    first, end = channels
    if row >= start:
        return x[row, first:end]
    return hold[hold.shape[0] + row - start, : end - first]


@jitted
def _keep_tail(x, row, start, hold, channels, tail):
    """Writes the inputs up to a row to tail (positions, all channels)."""
    first, end = channels
    n = tail.shape[0]
    for i in range(n):
        source = _input(x, row - n + 1 + i, start, hold, channels)
        target = tail[i, first:end]
        for c in range(end - first):
            target[c] = source[c]


@jitted
def _convolve(x, row, start, hold, channels, weights):
    """x[row] = silu(the sum over the last positions of weight * input), of some channels. Later
    rows must have been computed: they read this one's input."""
    first, end = channels
    n = weights.shape[0]
    out = x[row, first:end]
    weight = weights[n - 1, first:end]
    for c in range(end - first):
        out[c] = out[c] * weight[c]
    for i in range(n - 1):
        source = _input(x, row - n + 1 + i, start, hold, channels)
        weight = weights[i, first:end]
        for c in range(end - first):
            out[c] = fma(source[c], weight[c], out[c])
    for c in range(end - first):
        y = out[c]
        out[c] = y / (np.float32(1) + exp_f32(-y))


@jitted
def _scale_to_length(head, length):
    """Gives a query or a key the length `length`, nearly."""
    factor = length / np.sqrt(sum_of_squares(head) + SMALLEST)
    for i in range(head.size):
        head[i] = head[i] * factor


@jitted
def _channels(item, n_key_heads, dims):
    """The channels of a head: queries first, then keys, then values."""
    key_dim, value_dim = dims
    if item < 2 * n_key_heads:
        return item * key_dim, (item + 1) * key_dim
    first = 2 * n_key_heads * key_dim + (item - 2 * n_key_heads) * value_dim
    return first, first + value_dim


@region
def _convolve_heads(thread, team, x, starts, positions, slots, weights, tails, heads, dims, holds):
    n_key_heads, n_value_heads = heads
    n_heads = 2 * n_key_heads + n_value_heads
    n_kept, hold = weights.shape[0] - 1, holds[thread]
    while True:
        item = claim(team, 1)
        if item >= n_heads * (starts.size - 1):
            return
        s, head = item // n_heads, item % n_heads
        start, end = starts[s], starts[s + 1]
        channels = _channels(head, n_key_heads, dims)
        for i in range(n_kept):
            before = tails[slots[0][s], i, channels[0] : channels[1]]
            for c in range(channels[1] - channels[0]):
                hold[i, c] = np.float32(0) if positions[start] == 0 else before[c]
        for row in range(start, end):
            if slots[2][row] >= 0:
                _keep_tail(x, row, start, hold, channels, tails[slots[2][row]])
        _keep_tail(x, end - 1, start, hold, channels, tails[slots[1][s]])
        for row in range(end - 1, start - 1, -1):
            _convolve(x, row, start, hold, channels, weights)
            if head < 2 * n_key_heads:
                length = np.float32(1)
                if head < n_key_heads:
                    length = length / np.sqrt(np.float32(dims[0]))
                _scale_to_length(x[row, channels[0] : channels[1]], length)


@kernel
def _convolution(team, x, starts, positions, slots, weights, tails, heads, dims, holds):
    _convolve_heads(team, (team, x, starts, positions, slots, weights, tails, heads, dims, holds))


def convolution(
    team: np.ndarray, x: np.ndarray, starts: np.ndarray, positions: np.ndarray, slots: Slots,
    weights: np.ndarray, states: DeltaStates, layer: int,
) -> None:  # fmt: skip
    """Convolves queries, keys and values in place, and gives queries and keys their lengths.

    x (T, channels or wider) float32 begins with the queries of all key heads, their keys, and the
    values of all value heads; starts (S + 1,) and positions (T,) int32 are the step's; weights
    (positions, channels) float32 end with those of the row itself. Tails are read from the slots of
    each sequence, as zeros before its first token, and left in them.
    """
    launch(_convolution, team, x, starts, positions, tuple(slots), weights, states.tails[layer],
           states.heads, states.dims, states.holds)  # fmt: skip
