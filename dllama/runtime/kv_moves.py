"""A rank's part of moving a sequence's keys and values."""

from __future__ import annotations

import numpy as np

from dllama.kv_shift import KvShift
from dllama.runtime.state import RunState
from dllama.runtime.weights import Weights
from kernels.attention.shift_keys import shift_keys


def shift(weights: Weights, state: RunState, team: np.ndarray, order: KvShift) -> None:
    """Moves what this rank's heads know of the tokens that stay; see KvShift."""
    if weights.n_kv_heads == 0:
        return
    # Copies: what came over a link is read-only, to numba a type that it would compile for anew.
    shift_keys(
        team, state.kv.keys, state.kv.values, np.array(order.from_pages, np.int32),
        np.array(order.to_pages, np.int32), order.n_keep, order.n_drop,
        order.n_tokens - order.n_drop, weights.inv_freq, weights.config.head_dim,
    )  # fmt: skip
