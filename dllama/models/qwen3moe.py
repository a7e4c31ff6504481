"""Qwen3's mixtures of experts (arXiv 2505.09388), such as 30B-A3B and 235B-A22B."""

from dllama.models.blocks import NORM1, NORM2, QK_NORM, QKV, WO
from dllama.models.experts import EXPERTS, HF_KEYS, KEYS, MIXTURE, ROUTER, expert_fields
from dllama.models.family import Family

QWEN3MOE = Family(
    arch="qwen3moe",
    title="Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder",
    hf_types=("qwen3_moe",),
    hf_keys=HF_KEYS,
    layer=(NORM1, *QKV, *QK_NORM, WO, NORM2, ROUTER, *EXPERTS),
    always={"has_qk_norm": True},
    feed_forward=MIXTURE,
    config_of=expert_fields(is_normalized=True),
    keys=KEYS,
)
