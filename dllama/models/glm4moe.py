"""GLM-4.5's mixtures of experts (arXiv 2508.06471): a first dense layer or more, then experts that
are weighed by sigmoids and chosen with a bias, beside one that all tokens take. A part of each head
is rotated. The layers after the last one, which predict further tokens, are left out."""

from dataclasses import replace

from dllama.config import Gating
from dllama.models.blocks import NORM1, NORM2, QK_NORM, QKV, QKV_BIAS, WO
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

GLM4MOE = Family(
    arch="glm4moe",
    title="GLM-4.5, 4.6 and 4.7, GLM-4.5-Air",
    hf_types=("glm4_moe",),
    hf_keys=HF_GROUPED_KEYS,
    hf_known=frozenset({"use_qk_norm"}),
    layer=(
        NORM1, *QKV, *QKV_BIAS, *QK_NORM, WO, replace(NORM2, gguf="post_attention_norm.weight"),
        *LEADING_DENSE, ROUTER, CHOICE_BIAS, *EXPERTS, *SHARED_EXPERTS,
    ),
    always={"has_shared_gate": False},
    optional=("has_qkv_bias", "has_qk_norm", "has_choice_bias"),
    feed_forward=MIXTURE_OR_DENSE,
    config_of=expert_fields(is_normalized=True, gating=Gating.SIGMOID, has_shared=True),
    keys=KEYS,
)  # fmt: skip
