"""Phi-3.5-MoE (arXiv 2404.14219): a mixture of experts whose router is SparseMixer's (arXiv
2409.12136), with norms that take the mean off, and with biases of norms, attention and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.config import Gating
from dllama.errors import ModelFileError
from dllama.models.blocks import (
    BO,
    EMBED,
    NORM,
    NORM1,
    NORM2,
    NORM_BIAS,
    NORM_BIASES,
    QKV,
    QKV_BIAS,
    WCLS,
    WCLS_BIAS,
    WO,
)
from dllama.models.experts import EXPERTS, HF_KEYS, KEYS, MIXTURE, ROUTER, expert_fields
from dllama.models.family import Family
from dllama.models.llama import MIXTRAL

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

NOISE = "router_jitter_noise"  # of a folder
TRAINED = 0.01  # what kernels.experts.routing.MIXED_PART is made of


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    noise = keys.number(NOISE, TRAINED)
    if abs(noise - TRAINED) > 1e-6:
        raise ModelFileError(
            f"{keys.path}: {NOISE} is {noise:g}; this version computes routers that were trained "
            f"with {TRAINED}. Use another model."
        )
    return expert_fields(is_normalized=False, gating=Gating.SPARSE_MIXER)(keys)


PHIMOE = Family(
    arch="phimoe",
    title="Phi-3.5-MoE",
    hf_types=("phimoe",),
    hf_keys=HF_KEYS | {NOISE: NOISE},
    hf_renamed={
        "phimoe": MIXTRAL | {"mlp.router.weight": "block_sparse_moe.gate.weight"},
    },
    layer=(
        NORM1, NORM_BIASES[0], *QKV, *QKV_BIAS, WO, BO, NORM2, NORM_BIASES[1],
        replace(ROUTER, hf="mlp.router.weight"), *EXPERTS,
    ),
    outer=(EMBED, NORM, NORM_BIAS, WCLS, WCLS_BIAS),
    always={"has_layer_norm": True, "has_qkv_bias": True},
    has_rms_epsilon=True,
    feed_forward=MIXTURE,
    config_of=_fields,
    keys=KEYS,
)  # fmt: skip
