"""Command-R, Command-R+ and Aya 23 (Cohere): attention and feed-forward read one norm and are added
up together. The norm takes the mean off; in R+ each head has one, with weights of its own. In
Command R7B and Command A (Cohere 2) three of four layers have a sliding window, and the fourth no
positions."""

from __future__ import annotations

from dataclasses import replace

from dllama.models.blocks import FEED_FORWARD, JOINT_QK_NORM, NORM1, QKV, WO
from dllama.models.family import PARALLEL, Family
from dllama.models.windows import WindowRule

COMMAND_R = Family(
    arch="command-r",
    title="Command-R, Command-R+, Aya 23",
    hf_types=("cohere",),
    hf_keys={
        "logit_scale": "logit_scale",
        "model_max_length": "context_length",  # the other key has a tenth of it
    },
    layer=(
        NORM1, *QKV,
        *(replace(norm, has_pairs=True, is_by_head=True) for norm in JOINT_QK_NORM), WO,
        *FEED_FORWARD,
    ),
    is_interleaved=True,
    is_hf_interleaved=True,
    hf_known=frozenset({"use_qk_norm"}),
    optional=("has_qk_norm",),
    always={"has_layer_norm": True},
    attention=PARALLEL,
    feed_forward=None,
    keys=frozenset({"logit_scale"}),
)  # fmt: skip

COHERE2 = Family(
    arch="cohere2",
    title="Command R7B, Command A",
    hf_types=("cohere2",),
    hf_defaults={"logit_scale": 0.0625},
    hf_keys={"logit_scale": "logit_scale"},
    layer=(NORM1, *QKV, WO, *FEED_FORWARD),
    is_interleaved=True,
    is_hf_interleaved=True,
    optional=(),
    always={"has_layer_norm": True},
    windows=WindowRule(every=4, turns_full_layers=False),
    attention=PARALLEL,
    feed_forward=None,
    keys=frozenset({"logit_scale"}),
)
