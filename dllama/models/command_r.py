"""Command-R and Command-R+, Aya 23 (Cohere): attention and feed-forward of one norm, which are added
up together; the norm takes the mean off; in R+ each head has weights of its own for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.models.blocks import FEED_FORWARD, JOINT_QK_NORM, NORM1, QKV, WO
from dllama.models.family import PARALLEL, Family

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    return {"logit_scale": keys.number("logit_scale", 1.0)}


COMMAND_R = Family(
    arch="command-r",
    title="Command-R, Command-R+, Aya 23",
    hf_types=("cohere",),
    hf_keys={
        "logit_scale": "logit_scale",
        "model_max_length": "context_length",  # the other key has a tenth of it
    },
    layer=(
        NORM1, *QKV, *(replace(norm, has_pairs=True) for norm in JOINT_QK_NORM), WO, *FEED_FORWARD,
    ),
    is_interleaved=True,
    is_hf_interleaved=True,
    always={"has_layer_norm": True},
    attention=PARALLEL,
    feed_forward=None,
    config_of=_fields,
    keys=frozenset({"logit_scale"}),
)  # fmt: skip
