"""DeepSeek-V2, V2-Lite, V3, R1 (arXiv 2405.04434, 2412.19437) and Kimi-K2: multi-head latent
attention, then mixtures of experts after some dense layers. Of a token and layer one row is kept
for all heads; queries are taken to it by a matrix of each head, and what a head mixes back from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dllama.config import Latent, ModelConfig
from dllama.errors import ModelFileError
from dllama.models.blocks import NORM1, NORM2, WO
from dllama.models.experts import (
    CHOICE_BIAS,
    EXPERTS,
    HF_GROUPED_KEYS,
    KEYS,
    LEADING_DENSE,
    MIXTURE_OR_DENSE,
    ROUTER,
    SHARED_EXPERTS,
    expert_fields,
)
from dllama.models.family import Family
from dllama.models.tensors import Axis, Tensor

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys


def has_q_rank(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of models with compressed queries."""
    return config.q_rank > 0


def has_plain_queries(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of models without them."""
    return config.q_rank == 0


LATENT = (
    Tensor("wq", "attn_q.weight", "self_attn.q_proj.weight", Axis.QUERIES, Axis.DIM, "qkv",
           when=has_plain_queries),
    Tensor("wq_a", "attn_q_a.weight", "self_attn.q_a_proj.weight", Axis.Q_RANK, Axis.DIM, "qkv",
           when=has_q_rank),
    Tensor("wkv_a", "attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", Axis.LATENT,
           Axis.DIM, "qkv"),
    Tensor("q_a_norm", "attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", None, Axis.Q_RANK,
           when=has_q_rank),
    Tensor("wq_b", "attn_q_b.weight", "self_attn.q_b_proj.weight", Axis.QUERIES, Axis.Q_RANK,
           when=has_q_rank),
    Tensor("kv_a_norm", "attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", None,
           Axis.KV_RANK),
    Tensor("wk_b", "attn_k_b.weight", "self_attn.kv_b_proj.weight[keys]", Axis.KEY_UP, Axis.NOPE,
           rows_each=Axis.KV_RANK),
    Tensor("wv_b", "attn_v_b.weight", "self_attn.kv_b_proj.weight[values]", Axis.HEADS,
           Axis.KV_RANK, rows_each=Axis.VALUE),
)  # fmt: skip
"""`wk_b` has a matrix (kv_rank, nope_dim) for each head, `wv_b` one (value_dim, kv_rank), one after
the other. Older files have both, the first transposed, in one tensor."""


def latent_fields(keys: ArchKeys) -> Mapping[str, object]:
    """Returns the ModelConfig fields of latent attention. Raises ModelFileError."""
    rope_dim = keys.integer("rope.dimension_count")
    key_length = keys.integer("attention.key_length_mla", keys.integer("attention.key_length"))
    value_dim = keys.integer("attention.value_length_mla", keys.integer("attention.value_length"))
    if rope_dim >= key_length:
        raise ModelFileError(
            f"{keys.path}: {rope_dim} of the {key_length} values of a key are rotated; fewer are "
            "expected. The file is corrupt, or of a kind this version does not support."
        )
    latent = Latent(
        kv_rank=keys.integer("attention.kv_lora_rank"), rope_dim=rope_dim,
        nope_dim=key_length - rope_dim, value_dim=value_dim,
        q_rank=keys.count("attention.q_lora_rank"),
    )  # fmt: skip
    return {
        "latent": latent,
        "head_dim": key_length,
        "n_kv_heads": keys.integer("attention.head_count"),
        "partial_rotary_dim": rope_dim,
        "attention_scale": _scale(keys, key_length),
    }


def _scale(keys: ArchKeys, key_length: int) -> float | None:
    """Returns the scale of scores under YaRN, which grows with the context; None for the plain
    one. `yarn_log_multiplier` is a tenth of DeepSeek's `mscale_all_dim`."""
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0, may_be_zero=True)
    if not multiplier:
        return None
    growth = 1.0 + multiplier * math.log(keys.number("rope.scaling.factor", 1.0))
    return growth * growth / math.sqrt(key_length)


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    mixture = expert_fields(is_normalized=False, has_shared=True)
    return {**latent_fields(keys), **mixture(keys)}


DEEPSEEK2 = Family(
    arch="deepseek2",
    title="DeepSeek-V2, V2-Lite, V3, R1, Kimi-K2",
    hf_types=("deepseek_v2", "deepseek_v3", "kimi_k2"),
    hf_keys=HF_GROUPED_KEYS,
    layer=(
        NORM1, *LATENT, WO, NORM2, *LEADING_DENSE, ROUTER, CHOICE_BIAS, *EXPERTS, *SHARED_EXPERTS,
    ),
    always={"has_shared_gate": False},
    optional=("has_choice_bias",),
    feed_forward=MIXTURE_OR_DENSE,
    config_of=_fields,
    keys=KEYS,
)  # fmt: skip
