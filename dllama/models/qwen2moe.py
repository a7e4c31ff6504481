"""Qwen2's mixtures of experts (arXiv 2407.10671), Qwen1.5-MoE and Qwen2-57B: beside its own experts
every token takes a shared one, by a weight of its own."""

from dllama.models.blocks import NORM1, NORM2, QKV, QKV_BIAS, WO
from dllama.models.experts import (
    EXPERTS,
    HF_KEYS,
    KEYS,
    MIXTURE,
    ROUTER,
    SHARED,
    SHARED_GATE,
    expert_fields,
)
from dllama.models.family import Family

QWEN2MOE = Family(
    arch="qwen2moe",
    title="Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, ROUTER, *EXPERTS, SHARED_GATE, *SHARED),
    hf_types=("qwen2_moe",),
    hf_keys=HF_KEYS,
    always={"has_qkv_bias": True},
    feed_forward=MIXTURE,
    config_of=expert_fields(is_normalized=False, has_shared=True),
    keys=KEYS,
)
