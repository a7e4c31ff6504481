"""Gated delta nets (arXiv 2412.06464) beside layers that attend: the rows of their tables, their
metadata, and their half layer. Attention has a gate in these families.

Written in terms of `Ops`, as blocks.py is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.config import DeltaSizes, ModelConfig
from dllama.errors import ModelFileError
from dllama.models.blocks import NORM2, QK_NORM, QKV, WO, attention
from dllama.models.family import HalfLayer
from dllama.models.tensors import Axis, Tensor

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops


LANES = 16  # value dims are whole vectors of the kernels
MAX_CONV = 16


def is_delta_sound(sizes: DeltaSizes) -> bool:
    """Returns whether sizes, all above zero, make gated delta nets that are computed here."""
    return (
        sizes.n_value_heads % sizes.n_key_heads == 0
        and sizes.n_key_heads % sizes.bundle == 0
        and (sizes.bundle == 1 or not sizes.pairs_gates)
        and sizes.key_dim % 2 == 0
        and sizes.value_dim % LANES == 0
        and 2 <= sizes.conv_len <= MAX_CONV
        and sizes.interval > 1
    )


def attends(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of layers that attend."""
    return not config.is_delta(layer)


def is_delta(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of gated delta nets."""
    return config.is_delta(layer)


GATED_ATTENTION = tuple(
    replace(tensor, when=attends, rows=Axis.GATED_HEADS if tensor.name == "wq" else tensor.rows)
    for tensor in (*QKV, *QK_NORM, WO)
)
"""Attention in the layers that have it. After each head's queries stands its gate."""

POST_ATTENTION_NORM = replace(NORM2, gguf="post_attention_norm.weight")
"""Of the input of the feed-forward, by the name that it has in these families' GGUF files."""

DELTA = (
    Tensor("delta_q", "attn_qkv.weight", "linear_attn.in_proj_qkv.weight", Axis.DELTA_KEYS,
           Axis.DIM, "delta", when=is_delta),
    Tensor("delta_k", "attn_qkv.weight", "linear_attn.in_proj_qkv.weight", Axis.DELTA_KEYS,
           Axis.DIM, "delta", when=is_delta),
    Tensor("delta_v", "attn_qkv.weight", "linear_attn.in_proj_qkv.weight", Axis.DELTA_VALUES,
           Axis.DIM, "delta", when=is_delta),
    Tensor("delta_z", "attn_gate.weight", "linear_attn.in_proj_z.weight", Axis.DELTA_VALUES,
           Axis.DIM, "delta", when=is_delta),
)  # fmt: skip
"""Queries, keys and values of gated delta nets, and the gates of their results."""

BETA_ALPHA = (
    Tensor("delta_beta", "ssm_beta.weight", "linear_attn.in_proj_b.weight", Axis.DELTA_HEADS,
           Axis.DIM, "delta", when=is_delta),
    Tensor("delta_alpha", "ssm_alpha.weight", "linear_attn.in_proj_a.weight", Axis.DELTA_HEADS,
           Axis.DIM, "delta", when=is_delta),
)  # fmt: skip
PAIRED_BETA_ALPHA = (
    Tensor("delta_gates", "ssm_ba.weight", "linear_attn.in_proj_ba.weight", Axis.DELTA_GATES,
           Axis.DIM, "delta", when=is_delta),
)  # fmt: skip
"""The same in one, key head by key head."""

DELTA_REST = (
    Tensor("conv_q", "ssm_conv1d.weight", "linear_attn.conv1d.weight", Axis.DELTA_KEYS, Axis.CONV,
           "conv", when=is_delta, is_table=True),
    Tensor("conv_k", "ssm_conv1d.weight", "linear_attn.conv1d.weight", Axis.DELTA_KEYS, Axis.CONV,
           "conv", when=is_delta, is_table=True),
    Tensor("conv_v", "ssm_conv1d.weight", "linear_attn.conv1d.weight", Axis.DELTA_VALUES,
           Axis.CONV, "conv", when=is_delta, is_table=True),
    Tensor("delta_decay", "ssm_a", "linear_attn.A_log", None, Axis.DELTA_HEADS, when=is_delta),
    Tensor("delta_shift", "ssm_dt.bias", "linear_attn.dt_bias", None, Axis.DELTA_HEADS,
           when=is_delta),
    Tensor("delta_norm", "ssm_norm.weight", "linear_attn.norm.weight", None, Axis.DELTA_HEAD,
           when=is_delta),
    Tensor("delta_out", "ssm_out.weight", "linear_attn.out_proj.weight", Axis.DIM,
           Axis.DELTA_VALUES, when=is_delta),
)  # fmt: skip
"""The convolution before a gated delta net, its decay, and what follows it."""

HF_KEYS = {
    "linear_conv_kernel_dim": "ssm.conv_kernel",
    "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
    "full_attention_interval": "full_attention_interval",
}
"""Keys of config.json, and those of metadata that mean the same (Family.hf_keys)."""

DEFAULT_INTERVAL = 4
COLUMN_BLOCK = 256  # columns of the largest blocks of weights


def _is_every(keys: ArchKeys, interval: int) -> bool:
    """Returns whether a file that says the kind of each layer has one that attends at every
    `interval`-th, the layers that predict further tokens left out."""
    kinds = keys.listed("attention.recurrent_layers")
    if not isinstance(kinds, list):
        return kinds is None
    n_layers = keys.integer("block_count") - keys.count("nextn_predict_layers")
    return [bool(kind) for kind in kinds[:n_layers]] == [
        (i + 1) % interval != 0 for i in range(n_layers)
    ]


def delta_fields(*, is_tiled: bool) -> Callable[[ArchKeys], Mapping[str, object]]:
    """Returns a function that reads the ModelConfig fields of gated delta nets (Family.config_of).
    It raises ModelFileError for sizes that make none.

    `is_tiled`: GGUF files have the first value heads of all key heads before their second ones.
    Ours are in bundles then, so that ranks can share them, and blocks of weights stay whole.
    """

    def fields(keys: ArchKeys) -> Mapping[str, object]:
        n_key_heads, n_value_heads = (
            keys.integer("ssm.group_count"),
            keys.integer("ssm.time_step_rank"),
        )
        key_dim = keys.integer("ssm.state_size")
        value_dim = keys.integer("ssm.inner_size", key_dim * n_value_heads) // n_value_heads
        bundle = math.gcd(n_key_heads, max(1, COLUMN_BLOCK // max(1, value_dim)))
        sizes = DeltaSizes(
            n_key_heads, n_value_heads, key_dim, value_dim, keys.integer("ssm.conv_kernel"),
            keys.integer("full_attention_interval", DEFAULT_INTERVAL),
            bundle=bundle if is_tiled and n_value_heads > n_key_heads else 1,
            pairs_gates=not is_tiled,
        )  # fmt: skip
        if not is_delta_sound(sizes) or not _is_every(keys, sizes.interval):
            raise ModelFileError(
                f"{keys.path}: {sizes} are sizes of gated delta nets that this version does not "
                "compute, or layers that attend are not every so many. The file is corrupt, or of "
                "a kind this version does not support."
            )
        return {"delta": sizes}

    return fields


def enter_attention_or_delta(ops: Ops, layer: Layer) -> None:
    """Takes in what the half layer before has added up, and norms the input of attention or of a
    gated delta net."""
    readers = (layer.matrix(name) for name in ("qkv", "delta"))
    ops.add_norm(layer.after_previous, layer.vector("norm1"), *readers)


def delta_net(ops: Ops, layer: Layer) -> None:
    """This rank's heads' part of delta_out(norm(result) * silu(gate)), to ops.addend (T, dim)."""
    delta, delta_out = layer.matrix("delta"), layer.matrix("delta_out")
    if delta is None or delta_out is None:  # no heads here
        ops.add_nothing()
        return
    ops.matmul(delta, ops.normed, ops.delta_nets.inputs)
    ops.delta_nets.convolve(layer)
    mixed = ops.delta_nets.run(layer, reader=delta_out)
    ops.matmul(delta_out, mixed, ops.addend)


def attention_or_delta(ops: Ops, layer: Layer) -> None:
    """The same, or attention."""
    compute = attention if layer.matrix("delta") is None else delta_net
    compute(ops, layer)


ATTENTION_OR_DELTA = HalfLayer(enter_attention_or_delta, attention_or_delta)
