"""How files store what gated delta nets are made of: the order of their heads, and numbers that are
not those that are computed with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dllama.config import ModelConfig
from dllama.models.blocks import NORM, NORM1, QK_NORM
from dllama.models.changes import plus_one
from dllama.models.delta import POST_ATTENTION_NORM
from dllama.models.family import Order


def minus_exp(values: np.ndarray) -> np.ndarray:
    """The decay of heads as it is computed with; checkpoints have the logarithm of its amount."""
    decay: np.ndarray = -np.exp(values)
    return decay


HF_CHANGES = {
    "linear_attn.A_log": minus_exp,
    **{tensor.hf: plus_one for tensor in (NORM, NORM1, POST_ATTENTION_NORM, *QK_NORM)},
}
"""What is done to the numbers of checkpoints (Family.hf_changes). The norm of a gated delta net is
as it is."""


def joint_order(config: ModelConfig) -> np.ndarray:
    """The rows of queries, keys, values and gates of all heads, where they are stored key head by
    key head: its queries, its keys, then the values and the gates of its value heads."""
    sizes = config.delta
    assert sizes is not None
    n, keys = sizes.n_key_heads, sizes.key_dim
    values = sizes.n_value_heads // n * sizes.value_dim
    stored = np.arange(n * 2 * (keys + values)).reshape(n, -1)
    ends = np.cumsum([keys, keys, values])
    return np.concatenate([part.ravel() for part in np.split(stored, ends, axis=1)])


def _heads_of(config: ModelConfig, *, is_tiled: bool) -> np.ndarray:
    """Returns where each value head is stored: those of a key head together, or with `is_tiled` the
    first ones of all key heads, then the second ones."""
    sizes = config.delta
    assert sizes is not None
    n_shared = sizes.n_value_heads // sizes.n_key_heads
    heads = np.arange(sizes.n_value_heads)
    stored = heads.reshape(n_shared, -1) if is_tiled else heads.reshape(-1, n_shared).T
    bundles = stored.reshape(n_shared, -1, sizes.bundle)  # (shared, bundles, key heads of a bundle)
    return np.moveaxis(bundles, 0, 1).ravel()


class ValueNames(NamedTuple):
    """Stored tensors with value heads: after queries and keys; values alone; a row for each head;
    a number for each head; what follows them."""

    after_keys: tuple[str, ...]
    values: tuple[str, ...]
    heads: tuple[str, ...]
    head_vectors: tuple[str, ...]
    out: str


def value_orders(names: ValueNames, *, is_tiled: bool) -> dict[str, Order]:
    """Returns the orders of all tensors that have value heads, by these names; `is_tiled` as in
    `delta_fields`."""

    def heads(config: ModelConfig) -> np.ndarray:
        return _heads_of(config, is_tiled=is_tiled)

    def values(config: ModelConfig) -> np.ndarray:
        within = np.arange(config.delta_head_dim)
        return (heads(config)[:, None] * config.delta_head_dim + within).ravel()

    def after_keys(config: ModelConfig) -> np.ndarray:
        n_before = 2 * config.delta_key_dim
        return np.concatenate([np.arange(n_before), n_before + values(config)])

    return {
        **dict.fromkeys(names.after_keys, Order(after_keys)),
        **dict.fromkeys(names.values, Order(values)),
        **dict.fromkeys(names.heads, Order(heads)),
        **dict.fromkeys(names.head_vectors, Order(heads, is_of_cols=True)),
        names.out: Order(values, is_of_cols=True),
    }


GGUF_ORDERS = value_orders(
    ValueNames(
        ("attn_qkv.weight", "ssm_conv1d.weight"), ("attn_gate.weight",),
        ("ssm_beta.weight", "ssm_alpha.weight"), ("ssm_a", "ssm_dt.bias"), "ssm_out.weight",
    ),
    is_tiled=True,
)  # fmt: skip
HF_ORDERS = value_orders(
    ValueNames(
        ("linear_attn.in_proj_qkv.weight", "linear_attn.conv1d.weight"),
        ("linear_attn.in_proj_z.weight",),
        ("linear_attn.in_proj_b.weight", "linear_attn.in_proj_a.weight"),
        ("linear_attn.A_log", "linear_attn.dt_bias"), "linear_attn.out_proj.weight",
    ),
    is_tiled=False,
)  # fmt: skip
"""Families whose value heads are tiled in GGUF files have them key head by key head in
checkpoints; ours are in bundles."""
