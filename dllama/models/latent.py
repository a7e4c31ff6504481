"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): its rows of a table, its metadata,
and its half layer. Of a token and layer one row is kept for all heads: each head's queries are
taken to it by a matrix of the head, and so is what the head mixes of such rows to its values.

Written in terms of `Ops`, as blocks.py is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dllama.config import Latent, ModelConfig
from dllama.errors import ModelFileError
from dllama.models.blocks import enter_attention
from dllama.models.family import HalfLayer, Order
from dllama.models.tensors import Axis, Tensor

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops


def _has_q_rank(config: ModelConfig, layer: int) -> bool:
    return config.q_rank > 0


def _has_plain_queries(config: ModelConfig, layer: int) -> bool:
    return config.q_rank == 0


_WK_B = Tensor("wk_b", "attn_k_b.weight", "self_attn.k_b_proj.weight", Axis.KEY_UP, Axis.NOPE,
               rows_each=Axis.KV_RANK)  # fmt: skip
_WV_B = Tensor("wv_b", "attn_v_b.weight", "self_attn.v_b_proj.weight", Axis.HEADS, Axis.KV_RANK,
               rows_each=Axis.VALUE)  # fmt: skip

LATENT = (
    Tensor("wq", "attn_q.weight", "self_attn.q_proj.weight", Axis.QUERIES, Axis.DIM, "qkv",
           when=_has_plain_queries),
    Tensor("wq_a", "attn_q_a.weight", "self_attn.q_a_proj.weight", Axis.Q_RANK, Axis.DIM, "qkv",
           when=_has_q_rank),
    Tensor("wkv_a", "attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", Axis.LATENT,
           Axis.DIM, "qkv"),
    Tensor("q_a_norm", "attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", None, Axis.Q_RANK,
           when=_has_q_rank),
    Tensor("wq_b", "attn_q_b.weight", "self_attn.q_b_proj.weight", Axis.QUERIES, Axis.Q_RANK,
           when=_has_q_rank),
    Tensor("kv_a_norm", "attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", None,
           Axis.KV_RANK),
    _WK_B,
    _WV_B,
)  # fmt: skip
"""`wk_b` has a matrix (kv_rank, nope_dim) for each head, `wv_b` one (value_dim, kv_rank), one after
the other."""

KV_B, HF_KV_B = "attn_kv_b.weight", "self_attn.kv_b_proj.weight"

JOINT_KV = {
    "wk_b": replace(_WK_B, gguf=KV_B, hf=HF_KV_B, rows=Axis.KEYS, cols=Axis.KV_RANK),
    "wv_b": replace(_WV_B, gguf=KV_B, hf=HF_KV_B),
}
"""How checkpoints and older GGUF files have them: in one tensor, and those of keys the other way
round (Family.stored)."""


def joint_kv_order(config: ModelConfig) -> np.ndarray:
    """The rows of the keys of all heads, then those of their values, where each head's values are
    stored after its keys."""
    sizes = config.latent
    assert sizes is not None
    width = sizes.nope_dim + sizes.value_dim
    stored = np.arange(config.n_heads * width).reshape(config.n_heads, width)
    parts = stored[:, : sizes.nope_dim], stored[:, sizes.nope_dim :]
    return np.concatenate([part.ravel() for part in parts])


JOINT_KV_ORDER = Order(joint_kv_order)


def latent_fields(keys: ArchKeys) -> Mapping[str, object]:
    """Returns the ModelConfig fields of latent attention. Raises ModelFileError."""
    rope_dim = keys.integer("rope.dimension_count")
    key_length, value_length = (
        keys.integer(f"attention.{name}_length_mla", keys.count(f"attention.{name}_length") or None)
        for name in ("key", "value")
    )
    if rope_dim >= key_length:
        raise ModelFileError(
            f"{keys.path}: {rope_dim} of the {key_length} values of a key are rotated; fewer are "
            "expected. The file is corrupt, or of a kind this version does not support."
        )
    latent = Latent(
        kv_rank=keys.integer("attention.kv_lora_rank"), rope_dim=rope_dim,
        nope_dim=key_length - rope_dim, value_dim=value_length,
        q_rank=keys.count("attention.q_lora_rank"),
    )  # fmt: skip
    return {
        "latent": latent,
        "head_dim": key_length,
        "n_kv_heads": keys.integer("attention.head_count"),
        "partial_rotary_dim": rope_dim,
        "attention_scale": _scale(keys, key_length),
    }


LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
"""The metadata key of a tenth of DeepSeek's `mscale_all_dim`: with it YaRN makes scores larger, and
leaves cosines and sines as they are."""


def _scale(keys: ArchKeys, key_length: int) -> float | None:
    """Returns the scale of scores where YaRN makes them larger with its factor; None for the plain
    one."""
    multiplier = keys.number(LOG_MULTIPLIER, 0.0, may_be_zero=True)
    factor = keys.number("rope.scaling.factor", 1.0)
    if not multiplier or factor <= 1:
        return None
    growth = 1.0 + multiplier * math.log(factor)
    return growth * growth / math.sqrt(key_length)


def log_multiplier(config: ModelConfig) -> float:
    """Returns the metadata value that gives a model its scale of scores; 0 for the plain one."""
    scaling, scale = config.rope_scaling, config.attention_scale
    if config.latent is None or scaling is None or scale is None:
        return 0.0
    growth = math.sqrt(scale * math.sqrt(config.head_dim))
    return (growth - 1.0) / math.log(scaling.factor)


def latent_attention(ops: Ops, layer: Layer) -> None:
    """This rank's heads' part of wo(v_b softmax((k_b q)  c * scale) c), where c are the rows that
    are kept, to ops.addend (T, dim)."""
    qkv, wk_b, wv_b, wo = (layer.matrix(name) for name in ("qkv", "wk_b", "wv_b", "wo"))
    if qkv is None or wk_b is None or wv_b is None or wo is None:  # no heads here
        ops.add_nothing()
        return
    ops.matmul(qkv, ops.normed, ops.qkv)
    ops.latent.store_rows(layer, ops.qkv, qkv.out_dim)
    queries = ops.qkv
    if (wq_b := layer.matrix("wq_b")) is not None:
        queries = ops.latent.queries
        ops.matmul(wq_b, ops.latent.normed_queries(layer, ops.qkv, wq_b), queries)
    ops.latent.absorb(queries, wk_b)
    ops.latent.attend(layer)
    ops.matmul(wo, ops.latent.values(wv_b, reader=wo), ops.addend)


LATENT_ATTENTION = HalfLayer(enter_attention, latent_attention)
