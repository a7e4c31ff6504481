"""GLM-4-0414 and GLM-Z1 (arXiv 2406.12793): norms before and after each half layer, half of each
head rotated, and files that have both halves of the feed-forward in one tensor."""

from dataclasses import replace

from dllama.models.blocks import NORM1, NORM2, POST_NORM1, POST_NORM2, QKV, QKV_BIAS, WO
from dllama.models.family import Family
from dllama.models.joint import JOINT_FEED_FORWARD

GLM4 = Family(
    arch="glm4",
    title="GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1",
    hf_types=("glm4",),
    layer=(
        NORM1, *QKV, *QKV_BIAS, WO, replace(POST_NORM1, hf="post_self_attn_layernorm.weight"),
        NORM2, *JOINT_FEED_FORWARD, replace(POST_NORM2, hf="post_mlp_layernorm.weight"),
    ),
    is_interleaved=True,
    is_hf_interleaved=True,
)  # fmt: skip
