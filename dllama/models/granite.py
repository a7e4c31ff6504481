"""Granite 3 and 4 without state spaces (arXiv 2405.04324): Llama with fixed scales of embeddings,
attention, what half layers add, and logits; or in place of the feed-forward a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, WO
from dllama.models.experts import EXPERTS, KEYS, MIXTURE, ROUTER, expert_fields
from dllama.models.family import Family

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

SCALES = {
    "attention.scale": "attention_scale",
    "embedding_scale": "embedding_scale",
    "residual_scale": "residual_scale",
}
"""Metadata keys, and the fields of ModelConfig that they give."""

HF_KEYS = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
HF_EXPERT_KEYS = {
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}
HF_EXPERTS = {
    "mlp.gate.weight": "block_sparse_moe.router.layer.weight",
    "mlp.experts.{e}.gate_proj.weight": "block_sparse_moe.input_linear.weight",
    "mlp.experts.{e}.up_proj.weight": "block_sparse_moe.input_linear.weight",
    "mlp.experts.{e}.down_proj.weight": "block_sparse_moe.output_linear.weight",
}
"""Checkpoints have all experts in one tensor, the gates of each above its other half."""

HYBRID = {
    "mlp.gate_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.up_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.down_proj.weight": "shared_mlp.output_linear.weight",
}
"""Those of models whose siblings have state spaces and experts beside this feed-forward."""


def scale_fields(keys: ArchKeys) -> Mapping[str, object]:
    """Returns the scales of a model; of logits GGUF files have the number that divides them."""
    found = {field: keys.number(key) for key, field in SCALES.items() if key in keys}
    return {**found, "logit_scale": 1 / keys.number("logit_scale", 1.0)}


def _mixture_fields(keys: ArchKeys) -> Mapping[str, object]:
    return {**scale_fields(keys), **expert_fields(is_normalized=True)(keys)}


GRANITE = Family(
    arch="granite",
    title="Granite 3 and 4 (dense)",
    hf_types=("granite", "granitemoehybrid"),
    hf_keys=HF_KEYS,
    hf_renamed={"granitemoehybrid": HYBRID},
    layer=(NORM1, *QKV, WO, NORM2, *FEED_FORWARD),
    is_interleaved=True,
    config_of=scale_fields,
    keys=frozenset({*SCALES, "logit_scale"}),
)

GRANITE_MOE = Family(
    arch="granitemoe",
    title="Granite 3 MoE",
    hf_types=("granitemoe",),
    hf_keys=HF_KEYS | HF_EXPERT_KEYS,
    layer=(
        NORM1, *QKV, WO, NORM2,
        *(replace(tensor, hf=HF_EXPERTS[tensor.hf]) for tensor in (ROUTER, *EXPERTS)),
    ),
    is_interleaved=True,
    feed_forward=MIXTURE,
    config_of=_mixture_fields,
    keys=frozenset({*SCALES, "logit_scale", *KEYS}),
)  # fmt: skip
