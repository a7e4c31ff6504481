"""DeepSeek-V2, V2-Lite, V3, R1 (arXiv 2405.04434, 2412.19437) and Kimi-K2: multi-head latent
attention, then mixtures of experts after some dense layers. The layers after the last one, which
predict further tokens, are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
from dllama.models.latent import (
    HF_KV_B,
    JOINT_KV,
    JOINT_KV_ORDER,
    KV_B,
    LATENT,
    LATENT_ATTENTION,
    LOG_MULTIPLIER,
    latent_fields,
)

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

_EXPERT_FIELDS = expert_fields(is_normalized=False, has_shared=True)


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    return {**_EXPERT_FIELDS(keys), **latent_fields(keys)}


DEEPSEEK2 = Family(
    arch="deepseek2",
    title="DeepSeek-V2, V2-Lite, V3, R1, Kimi-K2",
    hf_types=("deepseek_v2", "deepseek_v3", "kimi_k2"),
    hf_keys=HF_GROUPED_KEYS | {
        "kv_lora_rank": "attention.kv_lora_rank", "q_lora_rank": "attention.q_lora_rank",
    },
    layer=(
        NORM1, *LATENT, WO, NORM2, *LEADING_DENSE, ROUTER, CHOICE_BIAS, *EXPERTS, *SHARED_EXPERTS,
    ),
    always={"has_shared_gate": False},
    optional=("has_choice_bias",),
    stored=JOINT_KV,
    gguf_orders={KV_B: JOINT_KV_ORDER},
    hf_orders={HF_KV_B: JOINT_KV_ORDER},
    attention=LATENT_ATTENTION,
    feed_forward=MIXTURE_OR_DENSE,
    config_of=_fields,
    keys=KEYS | {LOG_MULTIPLIER},
)  # fmt: skip
