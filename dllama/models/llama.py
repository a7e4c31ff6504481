"""Llama (arXiv 2302.13971): norms before each half layer, rotary positions, gated feed-forward."""

from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, QKV_BIAS, WO
from dllama.models.family import Family

LLAMA = Family(
    arch="llama",
    title="Llama 2 and 3.x, Mistral",
    hf_types=("llama", "mistral"),
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, *FEED_FORWARD),
    is_interleaved=True,
    m_arch=0xABCD00,
)
