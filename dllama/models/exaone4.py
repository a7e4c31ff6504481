"""EXAONE 4.0 (arXiv 2507.11407): Llama with norms of what half layers add, instead of norms before
them, and with a norm of each query and key head. In the 32B three of four layers have a sliding
window, and the fourth no positions."""

from __future__ import annotations

from dllama.models.blocks import FEED_FORWARD, POST_NORM1, POST_NORM2, QK_NORM, QKV, WO
from dllama.models.family import Family
from dllama.models.windows import WindowRule

EXAONE4 = Family(
    arch="exaone4",
    title="EXAONE 4.0",
    hf_types=("exaone4",),
    layer=(*QKV, *QK_NORM, WO, POST_NORM1, *FEED_FORWARD, POST_NORM2),
    always={"has_qk_norm": True},
    windows=WindowRule(every=4, turns_full_layers=False),
)
