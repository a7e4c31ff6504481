"""Gemma 2 (arXiv 2408.00118) and Gemma 3 (arXiv 2503.19786): norms before and after each half
layer, a gate of GELU, scaled embeddings, and layers with a sliding window between those that see
everything. Gemma 2 caps scores and logits; Gemma 3 norms queries and keys instead, and layers with
a window have a rotary base of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dllama.models.blocks import (
    FEED_FORWARD,
    NORM,
    NORM1,
    NORM2,
    POST_NORM1,
    POST_NORM2,
    QK_NORM,
    QKV,
    WO,
)
from dllama.models.changes import plus_one
from dllama.models.family import Family
from dllama.models.windows import WindowRule
from kernels.gates import Gate

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

BEFORE_ATTENTION = (replace(NORM1, m=None), *QKV)
BEFORE_FEED_FORWARD = replace(NORM2, hf="pre_feedforward_layernorm.weight", m=None)
AFTER_ATTENTION = (WO, POST_NORM1, BEFORE_FEED_FORWARD, *FEED_FORWARD, POST_NORM2)
HF_CHANGES = {
    norm.hf: plus_one
    for norm in (NORM, NORM1, POST_NORM1, BEFORE_FEED_FORWARD, POST_NORM2, *QK_NORM)
}
HF_KEYS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "query_pre_attn_scalar": "attention.query_pre_attn_scalar",
}
HF_DEFAULTS = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072, "rope_theta": 1e6, "query_pre_attn_scalar": 256,
}  # fmt: skip
"""Gemma 3's, of which its first folders leave out those that a model has."""
KEYS = frozenset({"attn_logit_softcapping", "final_logit_softcapping", "attention.scale"})


def _fields(
    n_layers_of_27b: int, score_cap: float, logit_cap: float
) -> Callable[[ArchKeys], Mapping[str, object]]:
    """Returns a function that reads the fields of a Gemma (Family.config_of); the caps are those of
    files that say none."""

    def fields(keys: ArchKeys) -> Mapping[str, object]:
        dim = keys.integer("embedding_length")
        return {
            "attention_scale": _scale(keys, n_layers_of_27b),
            "attention_softcap": keys.number(
                "attn_logit_softcapping", score_cap, may_be_zero=True
            ),
            "final_softcap": keys.number("final_logit_softcapping", logit_cap, may_be_zero=True),
            "embedding_scale": math.sqrt(dim),
            "gate": Gate.GELU,
        }  # fmt: skip

    return fields


def _scale(keys: ArchKeys, n_layers_of_27b: int) -> float | None:
    """Returns the scale of scores; None for 1 / sqrt(head_dim). GGUF files do not say it: the 27B,
    known by its number of layers, divides by the root of the model's values per head."""
    if "attention.query_pre_attn_scalar" in keys:  # of a folder
        return float(np.float32(keys.number("attention.query_pre_attn_scalar") ** -0.5))
    if keys.raw("attention.scale") not in (None, 0):
        return keys.number("attention.scale")
    if keys.integer("block_count") != n_layers_of_27b:
        return None
    n_values: int = keys.integer("embedding_length") // keys.integer("attention.head_count")
    return float(n_values**-0.5)


GEMMA2 = Family(
    arch="gemma2",
    title="Gemma 2",
    hf_types=("gemma2",),
    hf_keys=HF_KEYS,
    hf_changes=HF_CHANGES,
    activations=("gelu_pytorch_tanh",),
    layer=(*BEFORE_ATTENTION, *AFTER_ATTENTION),
    windows=WindowRule(every=2, default=4096),
    config_of=_fields(46, score_cap=50.0, logit_cap=30.0),
    keys=KEYS,
)
GEMMA3 = Family(
    arch="gemma3",
    title="Gemma 3",
    hf_types=("gemma3_text",),
    hf_defaults=HF_DEFAULTS,
    hf_keys=HF_KEYS,
    hf_changes=HF_CHANGES,
    activations=("gelu_pytorch_tanh",),
    layer=(*BEFORE_ATTENTION, *QK_NORM, *AFTER_ATTENTION),
    always={"has_qk_norm": True},
    windows=WindowRule(every=6, has_local_rope=True, local_theta=10000.0),
    config_of=_fields(62, score_cap=0.0, logit_cap=0.0),
    keys=KEYS,
)
