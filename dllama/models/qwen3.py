"""Qwen3 (arXiv 2505.09388): Llama with a norm of each query and key head."""

from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QK_NORM, QKV, QKV_BIAS, WO
from dllama.models.family import Family

QWEN3 = Family(
    arch="qwen3",
    title="Qwen3",
    hf_types=("qwen3",),
    layer=(NORM1, *QKV, *QKV_BIAS, *QK_NORM, WO, NORM2, *FEED_FORWARD),
    always={"has_qk_norm": True},
    m_arch=0xABCD01,
)
