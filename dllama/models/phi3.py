"""Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219, 2412.08905, 2503.01743): Llama whose files have one
matrix of queries, keys and values, and one of both halves of the feed-forward. Those with long
contexts have LongRoPE's factors; Phi-4-mini rotates a part of each head."""

from dllama.models.blocks import NORM1, NORM2, WO
from dllama.models.family import Family
from dllama.models.joint import JOINT_FEED_FORWARD, JOINT_QKV

PHI3 = Family(
    arch="phi3",
    title="Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini",
    hf_types=("phi3",),
    layer=(NORM1, *JOINT_QKV, WO, NORM2, *JOINT_FEED_FORWARD),
)
