"""Llama 4 Scout and Maverick, their part on text: mixtures of experts that read what their router's
weight multiplies, beside one that all tokens take. Three of four layers attend within chunks; the
fourth has no positions, and queries that grow with theirs (arXiv 2501.19399)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.config import Gating, QueryGrowth
from dllama.errors import ModelFileError
from dllama.models.blocks import NORM1, NORM2, QKV, WO
from dllama.models.experts import (
    EXPERTS,
    KEYS,
    LEADING_DENSE,
    MIXTURE_OR_DENSE,
    ROUTER,
    SHARED,
    expert_fields,
)
from dllama.models.family import Family
from dllama.models.smollm3 import ROTATED
from dllama.models.windows import PATTERN, WINDOW, WindowRule, pattern_of

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

INTERVAL = "interleave_moe_layer_step"
GROWTH_SCALE, GROWTH_LENGTH = "attention.temperature_scale", "attention.temperature_length"
GROWS, NORMS, MIXTURES = "attention.grows_queries", "attention.norms_heads", "mixture_layers"
"""Keys of a folder that GGUF has no name for."""

EVERY, CHUNK = 4, 8192
WITHOUT_NORMS = 128  # experts of the model whose heads are not normed, where a file does not tell

HF_KEYS = {
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "intermediate_size": "expert_feed_forward_length",
    "intermediate_size_mlp": "feed_forward_length",
    "interleave_moe_layer_step": INTERVAL,
    "moe_layers": MIXTURES,
    "no_rope_layers": ROTATED,
    "use_qk_norm": NORMS,
    "attn_temperature_tuning": GROWS,
    "attn_scale": GROWTH_SCALE,
    "floor_scale": GROWTH_LENGTH,
}
HF_EXPERTS = {
    "expert_w1": "feed_forward.experts.gate_up_proj[0/2]",
    "expert_w3": "feed_forward.experts.gate_up_proj[1/2]",
    "expert_w2": "feed_forward.experts.down_proj",
}
"""Checkpoints have the outputs of both halves one after the other, in one tensor of all experts."""


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    experts = expert_fields(is_normalized=False, gating=Gating.SIGMOID, has_shared=True)(keys)
    n_layers, interval = keys.integer("block_count"), keys.integer(INTERVAL, 1)
    pattern = [int(on) for on in pattern_of(n_layers, EVERY)]
    for key, wanted in (
        (PATTERN, pattern), (ROTATED, pattern),
        (MIXTURES, list(range(interval - 1, n_layers, interval))),
    ):  # fmt: skip
        _check(keys, key, wanted)
    if not experts or keys.raw(WINDOW) == 0:
        raise ModelFileError(
            f"{keys.path}: this is a Llama 4 without experts or without chunks of attention, which "
            "this version does not compute. Use another model."
        )
    growth = QueryGrowth(
        keys.number(GROWTH_SCALE, 0.1, may_be_zero=True), keys.integer(GROWTH_LENGTH, CHUNK)
    )
    norms, n_experts = keys.raw(NORMS), experts["n_experts"]
    return {
        **experts,
        "shared_hidden_dim": experts["hidden_dim"],
        "dense_hidden_dim": keys.integer("feed_forward_length") if interval > 1 else 0,
        "mixture_interval": interval,
        "weighs_inputs": True,
        "query_growth": None if keys.raw(GROWS) in (False, 0) else growth,
        "has_plain_qk_norm": n_experts != WITHOUT_NORMS if norms is None else bool(norms),
    }


def _check(keys: ArchKeys, key: str, wanted: list[int]) -> None:
    """Raises ModelFileError where a file says another pattern of layers than the family's."""
    said = keys.listed(key)
    if said not in (None, wanted, EVERY):
        raise ModelFileError(
            f"{keys.path}: its layers with positions, chunks or experts are {str(said)[:80]}; this "
            f"version computes {str(wanted)[:80]}. Use another model."
        )


LLAMA4 = Family(
    arch="llama4",
    title="Llama 4 Scout and Maverick (text)",
    hf_types=("llama4_text",),
    hf_keys=HF_KEYS,
    hf_defaults={"rope_theta": 5e5},
    layer=(
        NORM1, *QKV, WO, NORM2,
        *(replace(tensor, hf=tensor.hf.replace("mlp.", "feed_forward."))
          for tensor in LEADING_DENSE),
        replace(ROUTER, hf="feed_forward.router.weight"),
        *(replace(tensor, hf=HF_EXPERTS[tensor.name]) for tensor in EXPERTS),
        *(replace(tensor, hf=tensor.hf.replace("mlp.", "feed_forward.")) for tensor in SHARED),
    ),
    is_interleaved=True,
    is_hf_interleaved=True,
    optional=(),
    always={"has_shared_gate": False},
    windows=WindowRule(every=EVERY, default=CHUNK, turns_full_layers=False, is_chunked=True),
    feed_forward=MIXTURE_OR_DENSE,
    config_of=_fields,
    keys=KEYS | {INTERVAL, NORMS, GROWTH_SCALE, GROWTH_LENGTH, GROWS},
)  # fmt: skip
