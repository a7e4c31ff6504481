"""Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values."""

from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, QKV_BIAS, WO
from dllama.models.family import Family

QWEN2 = Family(
    arch="qwen2",
    title="Qwen2, Qwen2.5",
    hf_types=("qwen2",),
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, *FEED_FORWARD),
    always={"has_qkv_bias": True},
)
