"""OLMo 2 (arXiv 2501.00656) and OLMo 3: Llama with norms of what half layers add, instead of norms
before them, and with norms of queries and of keys over all heads together. Three of four layers of
OLMo 3 have a sliding window, and positions that are not scaled."""

from dllama.models.blocks import (
    FEED_FORWARD,
    JOINT_QK_NORM,
    POST_NORM1,
    POST_NORM2,
    QKV,
    WO,
)
from dllama.models.family import JOINTLY_NORMED_ATTENTION, Family
from dllama.models.windows import WindowRule

OLMO2 = Family(
    arch="olmo2",
    title="OLMo 2, OLMo 3",
    hf_types=("olmo2", "olmo3"),
    layer=(*QKV, *JOINT_QK_NORM, WO, POST_NORM1, *FEED_FORWARD, POST_NORM2),
    always={"has_qk_norm": True},
    attention=JOINTLY_NORMED_ATTENTION,
    windows=WindowRule(every=4, has_local_rope=True),
)
