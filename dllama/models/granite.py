"""Granite 3 and 4 without state spaces (arXiv 2405.04324): Llama with fixed scales of embeddings,
attention, half layers and logits; or in place of the feed-forward a mixture of experts, with or
without one that all tokens take."""

from __future__ import annotations

from dataclasses import replace

from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, WO
from dllama.models.experts import EXPERTS, KEYS, MIXTURE, ROUTER, SHARED, expert_fields
from dllama.models.family import Family

SCALES = frozenset({"attention.scale", "embedding_scale", "residual_scale", "logit_scale"})
HF_KEYS = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
HF_EXPERT_KEYS = {
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "shared_intermediate_size": "expert_shared_feed_forward_length",
}
HF_EXPERTS = {
    "mlp.gate.weight": "block_sparse_moe.router.layer.weight",
    "mlp.experts.{e}.gate_proj.weight": "block_sparse_moe.input_linear.weight",
    "mlp.experts.{e}.up_proj.weight": "block_sparse_moe.input_linear.weight",
    "mlp.experts.{e}.down_proj.weight": "block_sparse_moe.output_linear.weight",
    "mlp.shared_expert.gate_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.shared_expert.up_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.shared_expert.down_proj.weight": "shared_mlp.output_linear.weight",
}
"""Checkpoints have all experts in one tensor, the gates of each above its other half."""

HYBRID = {
    "mlp.gate_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.up_proj.weight": "shared_mlp.input_linear.weight",
    "mlp.down_proj.weight": "shared_mlp.output_linear.weight",
}
"""Those of models whose siblings have state spaces and experts beside this feed-forward."""


GRANITE = Family(
    arch="granite",
    title="Granite 3 and 4 (dense)",
    hf_types=("granite", "granitemoehybrid"),
    hf_keys=HF_KEYS | {"shared_intermediate_size": "feed_forward_length"},
    hf_renamed={"granitemoehybrid": HYBRID},
    layer=(NORM1, *QKV, WO, NORM2, *FEED_FORWARD),
    is_interleaved=True,
    divides_logits=True,
    keys=SCALES,
)

GRANITE_MOE = Family(
    arch="granitemoe",
    title="Granite 3 MoE, Granite 4 MoE without state spaces",
    hf_types=("granitemoe", "granitemoeshared", "granitemoehybrid"),
    hf_keys=HF_KEYS | HF_EXPERT_KEYS,
    layer=(
        NORM1, *QKV, WO, NORM2,
        *(replace(tensor, hf=HF_EXPERTS[tensor.hf]) for tensor in (ROUTER, *EXPERTS, *SHARED)),
    ),
    is_interleaved=True,
    always={"has_shared_gate": False},
    feed_forward=MIXTURE,
    divides_logits=True,
    config_of=expert_fields(is_normalized=True, has_shared=True),
    keys=SCALES | KEYS,
)  # fmt: skip
