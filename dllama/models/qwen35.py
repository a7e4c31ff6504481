"""Qwen3.5 (its text part): of four layers three are gated delta nets, which keep a state in place
of keys and values. Feed-forwards are dense, or mixtures of experts with a shared one."""

from dataclasses import replace

from dllama.models.blocks import FEED_FORWARD, NORM1
from dllama.models.delta import (
    ATTENTION_OR_DELTA,
    BETA_ALPHA,
    DELTA,
    DELTA_REST,
    GATED_ATTENTION,
    POST_ATTENTION_NORM,
    delta_fields,
)
from dllama.models.delta import HF_KEYS as DELTA_HF_KEYS
from dllama.models.delta_orders import GGUF_ORDERS, HF_CHANGES, HF_ORDERS
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

_HALF = (NORM1, *GATED_ATTENTION, *DELTA, *BETA_ALPHA, *DELTA_REST, POST_ATTENTION_NORM)
_DELTA_FIELDS = delta_fields(is_tiled=True)
_EXPERT_FIELDS = expert_fields(is_normalized=True, has_shared=True)

QWEN35 = Family(
    arch="qwen35",
    title="Qwen3.5 0.8B to 27B",
    hf_types=("qwen3_5", "qwen3_5_text"),
    hf_keys=DELTA_HF_KEYS,
    layer=(*_HALF, *FEED_FORWARD),
    always={"has_qk_norm": True, "has_output_gate": True},
    gguf_orders=GGUF_ORDERS,
    hf_orders=HF_ORDERS,
    hf_changes=HF_CHANGES,
    has_rope_sections=True,
    attention=ATTENTION_OR_DELTA,
    config_of=_DELTA_FIELDS,
)

QWEN35MOE = replace(
    QWEN35,
    arch="qwen35moe",
    title="Qwen3.5-35B-A3B, 122B-A10B, 397B-A17B",
    hf_types=("qwen3_5_moe", "qwen3_5_moe_text"),
    hf_keys=HF_KEYS | DELTA_HF_KEYS,
    layer=(*_HALF, ROUTER, *EXPERTS, SHARED_GATE, *SHARED),
    feed_forward=MIXTURE,
    config_of=lambda keys: {**_EXPERT_FIELDS(keys), **_DELTA_FIELDS(keys)},
    keys=KEYS,
)  # fmt: skip
