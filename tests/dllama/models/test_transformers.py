"""Every family against `transformers`: a tiny random model of theirs, its weights by the names of
our tables, the same logits. Needs PyTorch (the `train` extra)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")

from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.config import (
    FULL_ATTENTION,
    Gating,
    LayerAttention,
    ModelConfig,
    QueryGrowth,
    RopeScaling,
    RopeScalingKind,
)
from dllama.formats.checkpoint.joint_experts import Turns
from dllama.formats.checkpoint.source import their_name
from dllama.formats.rope_order import RotaryPairs, half_split_order
from dllama.formats.stored_views import by_stored_name
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_export import (
    factor_rows,
    in_file_order,
    model_stream,
)
from dllama.models import FAMILIES, model_tensors
from dllama.qtypes import QType
from kernels.gates import Gate
from tests.dllama.models.beside_transformers import compare, random_model
from tests.toy_models import DELTA, GRANITE, LONGROPE

TOKENS = np.random.default_rng(1).integers(0, 352, 40).tolist()
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 352,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
EXPERTS = {
    "num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 160, "shared_expert_intermediate_size": 320,
}  # fmt: skip


GRANITE_JSON = {
    "attention_multiplier": 0.125, "embedding_multiplier": 1.5, "residual_multiplier": 0.75,
    "logits_scaling": 4.0,
}  # fmt: skip
COHERE = {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "use_qk_norm": False}
GROUPED = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 160,
    "n_shared_experts": 2, "intermediate_size": 224, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
}  # fmt: skip
OURS_GROUPED = {
    "gating": Gating.SIGMOID, "has_expert_norm": True, "shared_hidden_dim": 320,
    "n_dense_layers": 1, "dense_hidden_dim": 224, "expert_scale": 1.5, "n_expert_groups": 4,
    "n_active_groups": 2, "has_choice_bias": True, "partial_rotary_dim": 8,
}  # fmt: skip
GLM = {
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5
    },
}  # fmt: skip
PHI3 = {"sliding_window": None, "pad_token_id": 0}


class Case(NamedTuple):
    """A model of theirs, by its `model_type`, and of ours."""

    model_type: str
    arch: str
    theirs: dict[str, object]
    ours: dict[str, object]


def phi4_mini(context: int, original: int) -> Case:
    """A model with LongRoPE's factors that turns three quarters of each head."""
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": original, "attention_factor": 1.125,
        "short_factor": list(LONGROPE["rope_factors"]),
        "long_factor": list(LONGROPE["long_rope_factors"]),
    }  # fmt: skip
    scaling = RopeScaling(RopeScalingKind.LONGROPE, 1.0, original, attention_factor=1.125)
    theirs = {"max_position_embeddings": context, "original_max_position_embeddings": original}
    return Case(
        "phi3", "phi3", {**PHI3, **theirs, "rope_parameters": rope, "partial_rotary_factor": 0.75},
        LONGROPE | {"max_seq_len": context, "rope_scaling": scaling},
    )  # fmt: skip


LESS_ONE = ("gemma2", "gemma3")
"""Families whose checkpoints have norms' weights less one."""

WINDOW = 12
KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
EXAONE4_32B = Case(
    "exaone4", "exaone4", {"num_hidden_layers": 4, "sliding_window": WINDOW},
    {"n_layers": 4, "attention_layers": (
        *(LayerAttention(WINDOW),) * 3, LayerAttention(is_rotated=False),
    )},
)  # fmt: skip
GEMMA2 = Case(
    "gemma2", "gemma2",
    {**KINDS, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0,
     "final_logit_softcapping": 4.0},
    {"attention_layers": (LayerAttention(WINDOW), LayerAttention()), "attention_scale": 24**-0.5,
     "attention_softcap": 3.0, "final_softcap": 4.0},
)  # fmt: skip
GEMMA3 = Case(
    "gemma3_text", "gemma3",
    {**KINDS, "query_pre_attn_scalar": 16, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }},
    {"attention_layers": (LayerAttention(WINDOW, has_local_rope=True), LayerAttention()),
     "local_rope_theta": 100.0,
     "rope_scaling": RopeScaling(RopeScalingKind.LINEAR, 2.0, 256)},
)  # fmt: skip

YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0,
    "beta_slow": 1.0, "original_max_position_embeddings": 32,
}  # fmt: skip
OLMO3 = Case(
    "olmo3", "olmo2",
    {**KINDS, "rope_parameters": {
        "full_attention": {**YARN, "attention_factor": 1.2},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }},
    {"attention_layers": (LayerAttention(WINDOW, has_local_rope=True), LayerAttention()),
     "rope_scaling": RopeScaling(RopeScalingKind.YARN, 8.0, 32, attention_factor=1.2)},
)  # fmt: skip

CASES = [
    *(Case(arch, arch, {}, {}) for arch in ("llama", "qwen2", "qwen3")),
    Case(
        "exaone4", "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 2}, {},
    ),
    EXAONE4_32B,
    Case(
        "mistral", "llama", {"sliding_window": WINDOW},
        {"attention_layers": (LayerAttention(WINDOW),) * 2},
    ),
    Case("mistral", "llama", {"sliding_window": None, "head_dim": 32}, {"head_dim": 32}),
    Case(
        "ministral", "llama", KINDS,
        {"attention_layers": (LayerAttention(WINDOW), LayerAttention())},
    ),
    GEMMA2,
    GEMMA3,
    Case("smollm3", "smollm3", {"num_hidden_layers": 4, "pad_token_id": 0}, {"n_layers": 4}),
    Case("phi3", "phi3", PHI3, {}),
    Case(
        "phi3", "phi3", PHI3 | {"sliding_window": WINDOW},
        {"attention_layers": (LayerAttention(WINDOW),) * 2},
    ),
    phi4_mini(256, original=30),
    phi4_mini(96, original=100),
    Case("granite", "granite", GRANITE_JSON, GRANITE),
    Case("granitemoe", "granitemoe", EXPERTS | GRANITE_JSON, {"has_expert_norm": True} | GRANITE),
    *(
        Case(
            kind, "granitemoe",
            EXPERTS | GRANITE_JSON | {
                "shared_intermediate_size": 320, "layer_types": ["attention"] * 2,
                "position_embedding_type": "rope",
            },
            {"has_expert_norm": True, "shared_hidden_dim": 320} | GRANITE,
        )
        for kind in ("granitemoeshared", "granitemoehybrid")
    ),
    Case("olmo2", "olmo2", {}, {}),
    OLMO3,
    Case("olmoe", "olmoe", EXPERTS | {"norm_topk_prob": False}, {}),
    Case(
        "glm4", "glm4", GLM | {"attention_bias": True, "pad_token_id": 0},
        {"has_qkv_bias": True, "partial_rotary_dim": 8},
    ),
    Case("cohere", "command-r", COHERE, {"logit_scale": 0.0625}),
    Case("cohere", "command-r", COHERE | {"use_qk_norm": True},
         {"logit_scale": 0.0625, "has_qk_norm": True}),
    Case(
        "cohere2", "cohere2", KINDS | {"layer_norm_eps": 1e-5, "logit_scale": 0.25},
        {"logit_scale": 0.25, "attention_layers": (
            LayerAttention(WINDOW), LayerAttention(is_rotated=False),
        )},
    ),
    Case("mixtral", "llama", EXPERTS, {"has_expert_norm": True}),
    Case("qwen3_moe", "qwen3moe", EXPERTS | {"norm_topk_prob": True}, {"has_expert_norm": True}),
    Case("qwen3_moe", "qwen3moe", EXPERTS | {"norm_topk_prob": False}, {}),
    Case("qwen2_moe", "qwen2moe", EXPERTS, {"shared_hidden_dim": 320}),
    Case("glm4_moe", "glm4moe", GROUPED | GLM | {"attention_bias": True, "use_qk_norm": True},
         OURS_GROUPED | {"has_qkv_bias": True, "has_qk_norm": True}),
    Case("glm4_moe", "glm4moe", GROUPED | GLM | {"n_group": 1, "topk_group": 1},
         OURS_GROUPED | {"n_expert_groups": 1, "n_active_groups": 1}),
]  # fmt: skip


LLAMA4 = {
    "num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size_mlp": 224,
    "num_hidden_layers": 4, "interleave_moe_layer_step": 2, "attention_chunk_size": WINDOW,
    "floor_scale": 7, "attn_scale": 0.5, "pad_token_id": 0,
}  # fmt: skip
OURS_LLAMA4 = {
    "n_active_experts": 1, "gating": Gating.SIGMOID, "weighs_inputs": True, "n_layers": 4,
    "mixture_interval": 2, "dense_hidden_dim": 224, "shared_hidden_dim": 160,
    "query_growth": QueryGrowth(0.5, 7), "has_plain_qk_norm": True,
    "attention_layers": (
        *(LayerAttention(WINDOW, is_chunked=True),) * 3, LayerAttention(is_rotated=False),
    ),
}  # fmt: skip
CASES.append(
    Case(
        "ministral3", "mistral3",
        {"rope_parameters": {
            **YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.7,
            "original_max_position_embeddings": 9,
        }},
        {"query_growth": QueryGrowth(0.7, 9, first=0, is_everywhere=True),
         "rope_scaling": RopeScaling(RopeScalingKind.YARN, 8.0, 9, attention_factor=1.0)},
    )
)  # fmt: skip
CASES += [
    Case("llama4_text", "llama4", LLAMA4, OURS_LLAMA4),
    Case(
        "llama4_text", "llama4",
        LLAMA4 | {"use_qk_norm": False, "attn_temperature_tuning": False, "num_experts_per_tok": 2},
        OURS_LLAMA4 | {"has_plain_qk_norm": False, "query_growth": None, "n_active_experts": 2},
    ),
]  # fmt: skip
PHIMOE = {
    "num_local_experts": 8, "num_experts_per_tok": 2, "lm_head_bias": True, "attention_bias": True,
    "sliding_window": None, "pad_token_id": 0,
}  # fmt: skip
OURS_PHIMOE = {"n_active_experts": 2, "gating": Gating.SPARSE_MIXER}
PHIMOE_LONG = {
    "max_position_embeddings": 4096, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096,
        "short_factor": [1.0, 1.0, 1.25, 1.5, 1.5, 2.0, 2.5, 3.0], "long_factor": [4.0] * 8,
        "short_mscale": 1.125, "long_mscale": 1.125,
    },
}  # fmt: skip
CASES += [
    Case("phimoe", "phimoe", PHIMOE, OURS_PHIMOE),
    Case("phimoe", "phimoe", PHIMOE | PHIMOE_LONG, OURS_PHIMOE | {
        "max_seq_len": 4096,
        "rope_scaling": RopeScaling(RopeScalingKind.LONGROPE, 1.0, 4096, attention_factor=1.125),
        "rope_factors": (1.0, 1.0, 1.25, 1.5, 1.5, 2.0, 2.5, 3.0), "long_rope_factors": (4.0,) * 8,
    }),
]  # fmt: skip
GPT_OSS = {
    "num_local_experts": 8, "num_experts_per_tok": 3, "sliding_window": 16,
    "rope_parameters": {**YARN, "truncate": False},
    "pad_token_id": 0, "attn_implementation": "eager",
}  # fmt: skip
CASES.append(
    Case(
        "gpt_oss", "gpt-oss", GPT_OSS,
        {
            "n_experts": 8, "n_active_experts": 3, "has_expert_norm": True, "gate": Gate.CLAMPED,
            "attention_layers": (LayerAttention(window=16), FULL_ATTENTION),
            "rope_scaling": RopeScaling(RopeScalingKind.YARN, 8.0, 32, is_rounded=False),
        },
    )
)  # fmt: skip


def test_every_family_is_here() -> None:
    """Or, with gated delta nets or latent attention, in files of their own."""
    assert {case.arch for case in CASES} | set(DELTA) | {"deepseek2"} == set(FAMILIES)


LOADED = {
    "block_sparse_moe.input_linear.weight": "block_sparse_moe.experts.gate_up_proj",
    "block_sparse_moe.output_linear.weight": "block_sparse_moe.experts.down_proj",
    "block_sparse_moe.router.layer.weight": "block_sparse_moe.router.weight",
}
"""Names of tensors in checkpoints, and in models that transformers has loaded."""


def values_of(state: Mapping[str, Any], theirs: str) -> np.ndarray:
    """A stored tensor of theirs, which has the experts of a layer in one, the gates of each above
    its other half; gpt-oss's by turns, and its matrices the other way round."""
    turns = Turns.of(theirs)
    if ".experts." in theirs and "{e}" not in theirs:
        whole = state[turns.name].numpy()
        n_outputs = whole.shape[-1] // turns.n_parts
        outputs_last = whole[..., turns.theirs(range(n_outputs), n_outputs)]
        return outputs_last if outputs_last.ndim == 2 else outputs_last.transpose(0, 2, 1)
    for stored, loaded in LOADED.items():
        theirs = theirs.replace(stored, loaded)
    if "{e}" not in theirs:
        return state[theirs].numpy()
    joint, _, which = theirs.removesuffix("_proj.weight").replace("{e}.", "").rpartition(".")
    if which == "down":
        return state[f"{joint}.down_proj"].numpy()
    gates, ups = np.split(state[f"{joint}.gate_up_proj"].numpy(), 2, axis=1)
    return gates if which == "gate" else ups


def our_rows(state: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """Every tensor of ours by its name, (rows, cols)."""
    found: dict[str, np.ndarray] = {}
    for theirs, parts in by_stored_name(config, their_name).items():
        n_experts = parts[0][1].n_experts(config)
        shapes = [tensor.shape(config) for _, tensor in parts]
        whole = values_of(state, theirs).reshape(n_experts, -1, shapes[0][1])
        ends = np.cumsum([rows // n_experts for rows, _ in shapes])
        for (name, tensor), rows in zip(parts, np.split(whole, ends[:-1], axis=1), strict=True):
            values = rows.reshape(tensor.shape(config))
            if tensor.has_pairs and FAMILIES[config.arch].is_hf_interleaved:
                axis, pairs = int(tensor.is_vector), RotaryPairs(config.head_dim, config.rotary_dim)
                order = half_split_order(range(values.shape[axis]), pairs)
                values = np.take(values, order, axis)
            is_less_one = tensor.is_vector and config.arch in LESS_ONE
            found[name] = values + 1 if is_less_one else values
    return found


def written(path: Path, case: Case) -> np.ndarray:
    """Writes a random model; returns the logits of theirs after each of TOKENS."""
    theirs, expected = random_model(case.model_type, {**SIZES, **case.theirs}, TOKENS)
    has_experts = "num_experts_per_tok" in case.theirs
    experts = {"n_experts": 8, "n_active_experts": 3} if has_experts else {}
    ours = ModelConfig(
        arch=case.arch, name=case.arch, dim=64, hidden_dim=160, n_heads=4,
        n_kv_heads=2, vocab_size=352, norm_epsilon=1e-5, rope_theta=10000.0,
        **{
            "head_dim": 16, "max_seq_len": 256, "n_layers": 2, **FAMILIES[case.arch].always,
            **experts, **case.ours,
        },
    )  # fmt: skip
    found = our_rows(theirs.state_dict(), ours)
    with model_stream(path, ours, QType.F32, lambda _: QType.F32, bpe_metadata(352)) as out:
        for name in model_tensors(ours):
            out.write(encode(in_file_order(ours, name, found[name]), QType.F32))
        for row in factor_rows(ours):
            out.write(row)
    return expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_type)
def test_logits_are_those_of_transformers(tmp_path: Path, case: Case) -> None:
    """Of a prompt and of single tokens, across the edge of windows, on one to three nodes."""
    path = tmp_path / "toy.gguf"
    expected = written(path, case)
    compare(path, expected, TOKENS, n_prompt=25)
