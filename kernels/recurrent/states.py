"""The memory of gated delta nets: for each sequence, layer and value head a matrix of key dim x
value dim numbers, and for each channel of the convolution before it its last inputs.

A sequence's state is in a slot. A step reads it from one slot and leaves it in another or the same
one, and may keep further copies of it, as it is after some of its rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.arrays import aligned


class DeltaStates(NamedTuple):
    """The states of one rank's heads."""

    tails: np.ndarray  # (n_layers, n_slots, positions, channels) float32
    matrices: np.ndarray  # (n_layers, n_slots, n_value_heads, key_dim, value_dim) float32
    holds: np.ndarray  # (n_threads, positions, a head's channels) float32: working space
    heads: tuple[int, int]  # key heads, value heads
    dims: tuple[int, int]  # values of a key head, of a value head


class Slots(NamedTuple):
    """Where the states of a step's sequences are: arrays of int32."""

    sources: np.ndarray  # (S,): the slot each is read from; not read at position 0
    targets: np.ndarray  # (S,): the slot each is left in
    copies: np.ndarray  # (T,): a slot for a copy of the state after each row; -1 for none


def delta_states(
    n_layers: int, n_slots: int, heads: tuple[int, int], dims: tuple[int, int], n_kept: int,
    n_threads: int,
) -> DeltaStates:  # fmt: skip
    """Returns states of zeros; `n_kept` are the inputs of a channel that are kept."""
    channels = 2 * heads[0] * dims[0] + heads[1] * dims[1]
    f32 = np.float32
    return DeltaStates(
        aligned((n_layers, n_slots, n_kept, channels), f32),
        aligned((n_layers, n_slots, heads[1], *dims), f32),
        aligned((n_threads, n_kept, max(dims)), f32),
        heads,
        dims,
    )


def state_values(heads: tuple[int, int], dims: tuple[int, int], n_kept: int) -> int:
    """Returns the numbers that the state of one layer has."""
    channels = 2 * heads[0] * dims[0] + heads[1] * dims[1]
    return n_kept * channels + heads[1] * dims[0] * dims[1]
