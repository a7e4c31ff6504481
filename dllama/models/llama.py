"""Llama (arXiv 2302.13971): norms before each half layer, rotary positions, gated feed-forward; or
in its place, as in Mixtral (arXiv 2401.04088), a mixture of experts."""

from dllama.models.blocks import NORM1, NORM2, QKV, QKV_BIAS, WO
from dllama.models.experts import DENSE, EXPERTS, KEYS, MIXTURE_OR_DENSE, ROUTER, expert_fields
from dllama.models.family import Family

MIXTRAL = {
    "mlp.gate.weight": "block_sparse_moe.gate.weight",
    "mlp.experts.{e}.gate_proj.weight": "block_sparse_moe.experts.{e}.w1.weight",
    "mlp.experts.{e}.up_proj.weight": "block_sparse_moe.experts.{e}.w3.weight",
    "mlp.experts.{e}.down_proj.weight": "block_sparse_moe.experts.{e}.w2.weight",
}

LLAMA = Family(
    arch="llama",
    title="Llama 2 and 3.x, Mistral, Ministral, Mixtral",
    hf_types=("llama", "mistral", "ministral", "mixtral"),
    hf_keys={"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
    hf_renamed={"mixtral": MIXTRAL},
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, *DENSE, ROUTER, *EXPERTS),
    is_interleaved=True,
    m_arch=0xABCD00,
    feed_forward=MIXTURE_OR_DENSE,
    config_of=expert_fields(is_normalized=True),
    keys=KEYS,
)
