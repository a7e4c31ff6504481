"""OLMo 2 (arXiv 2501.00656): Llama with norms of what half layers add, instead of norms before
them, and with norms of queries and of keys over all heads together."""

from dllama.models.blocks import (
    FEED_FORWARD,
    JOINT_QK_NORM,
    POST_NORM1,
    POST_NORM2,
    QKV,
    WO,
)
from dllama.models.family import JOINTLY_NORMED_ATTENTION, Family

OLMO2 = Family(
    arch="olmo2",
    title="OLMo 2",
    hf_types=("olmo2",),
    layer=(*QKV, *JOINT_QK_NORM, WO, POST_NORM1, *FEED_FORWARD, POST_NORM2),
    always={"has_qk_norm": True},
    attention=JOINTLY_NORMED_ATTENTION,
)
