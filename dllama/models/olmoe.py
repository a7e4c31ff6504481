"""OLMoE (arXiv 2409.02060): a mixture of experts whose weights do not add up to 1, with norms of
queries and of keys over all heads together."""

from dllama.models.blocks import JOINT_QK_NORM, NORM1, NORM2, QKV, WO
from dllama.models.experts import EXPERTS, HF_KEYS, KEYS, MIXTURE, ROUTER, expert_fields
from dllama.models.family import JOINTLY_NORMED_ATTENTION, Family

OLMOE = Family(
    arch="olmoe",
    title="OLMoE-1B-7B",
    hf_types=("olmoe",),
    hf_keys=HF_KEYS,
    layer=(NORM1, *QKV, *JOINT_QK_NORM, WO, NORM2, ROUTER, *EXPERTS),
    always={"has_qk_norm": True},
    attention=JOINTLY_NORMED_ATTENTION,
    feed_forward=MIXTURE,
    config_of=expert_fields(is_normalized=False),
    keys=KEYS,
)
