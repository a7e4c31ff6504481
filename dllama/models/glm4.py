"""GLM-4 of 2024 (arXiv 2406.12793), half of each head rotated and both halves of the feed-forward
in one tensor of its files; GLM-4-0414 and GLM-Z1, which norm what each half layer adds as well."""

from dataclasses import replace

from dllama.models.blocks import NORM1, NORM2, POST_NORM1, POST_NORM2, QKV, QKV_BIAS, WO
from dllama.models.family import Family
from dllama.models.joint import JOINT_FEED_FORWARD

HALF_TURNED = {"partial_rotary_factor": 0.5}

CHATGLM = Family(
    arch="chatglm",
    title="GLM-4-9B of 2024",
    hf_types=("glm",),
    hf_defaults=HALF_TURNED,
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, *JOINT_FEED_FORWARD),
    is_interleaved=True,
    is_hf_interleaved=True,
)

GLM4 = Family(
    arch="glm4",
    title="GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1",
    hf_types=("glm4",),
    hf_defaults=HALF_TURNED,
    layer=(
        NORM1, *QKV, *QKV_BIAS, WO, replace(POST_NORM1, hf="post_self_attn_layernorm.weight"),
        NORM2, *JOINT_FEED_FORWARD, replace(POST_NORM2, hf="post_mlp_layernorm.weight"),
    ),
    is_interleaved=True,
    is_hf_interleaved=True,
)  # fmt: skip
