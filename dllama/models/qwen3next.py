"""Qwen3-Next (Qwen3-Next-80B-A3B): of four layers three are gated delta nets, which keep a state in
place of keys and values; each has a mixture of experts with a shared one."""

from dllama.models.blocks import NORM1
from dllama.models.delta import (
    ATTENTION_OR_DELTA,
    DELTA,
    DELTA_REST,
    GATED_ATTENTION,
    PAIRED_BETA_ALPHA,
    POST_ATTENTION_NORM,
    delta_fields,
)
from dllama.models.delta import HF_KEYS as DELTA_HF_KEYS
from dllama.models.delta_orders import HF_CHANGES, joint_order
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
from dllama.models.family import Family, Order

JOINT = "linear_attn.in_proj_qkvz.weight"
"""Queries, keys, values and gates in one."""
_DELTA_FIELDS = delta_fields(is_tiled=False)
_EXPERT_FIELDS = expert_fields(is_normalized=True, has_shared=True)

QWEN3NEXT = Family(
    arch="qwen3next",
    title="Qwen3-Next-80B-A3B",
    hf_types=("qwen3_next",),
    hf_keys=HF_KEYS | DELTA_HF_KEYS,
    hf_renamed={
        "qwen3_next": {
            "linear_attn.in_proj_qkv.weight": JOINT,
            "linear_attn.in_proj_z.weight": JOINT,
        }
    },
    hf_orders={JOINT: Order(joint_order)},
    hf_changes=HF_CHANGES,
    layer=(
        NORM1, *GATED_ATTENTION, *DELTA, *PAIRED_BETA_ALPHA, *DELTA_REST, POST_ATTENTION_NORM,
        ROUTER, *EXPERTS, SHARED_GATE, *SHARED,
    ),
    always={"has_qk_norm": True, "has_output_gate": True},
    attention=ATTENTION_OR_DELTA,
    feed_forward=MIXTURE,
    config_of=lambda keys: {**_EXPERT_FIELDS(keys), **_DELTA_FIELDS(keys)},
    keys=KEYS,
)  # fmt: skip
