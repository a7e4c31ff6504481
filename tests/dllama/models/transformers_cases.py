"""Tiny models of every family, as the configurations of `transformers` describe them."""

from __future__ import annotations

from typing import NamedTuple

from dllama.models import FAMILIES
from tests.toy_models import LONGROPE

WINDOW = 12
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
FULL = {"sliding_window": None}
LONGROPE_JSON = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
    "short_factor": list(LONGROPE["rope_factors"]),
    "long_factor": list(LONGROPE["long_rope_factors"]),
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0,
    "beta_slow": 1.0, "original_max_position_embeddings": 32,
}  # fmt: skip
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 160}
LOCAL_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 3}
GROUPED = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 160,
    "n_shared_experts": 2, "intermediate_size": 224, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
}  # fmt: skip
PLAIN = {"n_group": 1, "topk_group": 1}
HALF_TURNED = {"rope_parameters": {**SIZES["rope_parameters"], "partial_rotary_factor": 0.5}}
GRANITE = {
    "attention_multiplier": 0.125, "embedding_multiplier": 1.5, "residual_multiplier": 0.75,
    "logits_scaling": 4.0,
}  # fmt: skip
SHARED_GRANITE = LOCAL_EXPERTS | GRANITE | {
    "shared_intermediate_size": 320, "layer_types": ["attention"] * 2,
    "position_embedding_type": "rope",
}  # fmt: skip
COHERE = {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "use_qk_norm": False}
LLAMA4 = {
    "num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size_mlp": 224,
    "num_hidden_layers": 4, "interleave_moe_layer_step": 2, "attention_chunk_size": WINDOW,
    "floor_scale": 7, "attn_scale": 0.5,
}  # fmt: skip
PHIMOE = {
    "num_local_experts": 8, "num_experts_per_tok": 2, "lm_head_bias": True, "attention_bias": True,
    **FULL,
}  # fmt: skip
DELTA = {
    "num_hidden_layers": 4, "full_attention_interval": 2, **HALF_TURNED,
    "linear_num_key_heads": 4, "linear_num_value_heads": 8, "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
}  # fmt: skip
DELTA_EXPERTS = (
    DELTA
    | EXPERTS
    | {
        "moe_intermediate_size": 96,
        "shared_expert_intermediate_size": 192,
    }
)
LATENT = {
    **GROUPED, "num_hidden_layers": 3, "num_key_value_heads": 4, "head_dim": 8, "kv_lora_rank": 32,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 32, "v_head_dim": 24,
}  # fmt: skip
LATENT_YARN = {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}}


class Case(NamedTuple):
    """A model of theirs, by its `model_type`, and the family that it is for us."""

    model_type: str
    arch: str
    config: dict[str, object]


def _phi4_mini(context: int, original: int) -> Case:
    """One with LongRoPE's factors that turns three quarters of each head."""
    own = {"max_position_embeddings": context, "original_max_position_embeddings": original}
    rope = LONGROPE_JSON | {"original_max_position_embeddings": original}
    return Case(
        "phi3", "phi3", {**FULL, **own, "rope_parameters": rope, "partial_rotary_factor": 0.75}
    )


CASES: dict[str, Case] = {
    "llama": Case("llama", "llama", {}),
    "llama3-scaling": Case("llama", "llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    }}),
    "qwen2": Case("qwen2", "qwen2", {}),
    "qwen3": Case("qwen3", "qwen3", {}),
    "exaone4": Case("exaone4", "exaone4", FULL | {"layer_types": ["full_attention"] * 2}),
    "exaone4-32b": Case("exaone4", "exaone4", {"num_hidden_layers": 4, "sliding_window": WINDOW}),
    "mistral": Case("mistral", "llama", FULL | {"head_dim": 32}),
    "mistral-window": Case("mistral", "llama", {"sliding_window": WINDOW}),
    "ministral": Case("ministral", "llama", KINDS),
    "ministral3": Case("ministral3", "mistral3", {"rope_parameters": {
        **YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.7,
        "original_max_position_embeddings": 9,
    }}),
    "mixtral": Case("mixtral", "llama", LOCAL_EXPERTS),
    "gemma2": Case("gemma2", "gemma2", {
        **KINDS, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 4.0, "tie_word_embeddings": True,
    }),
    "gemma3": Case("gemma3_text", "gemma3", {
        **KINDS, "query_pre_attn_scalar": 16, "tie_word_embeddings": True, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    }),
    "smollm3": Case("smollm3", "smollm3", {"num_hidden_layers": 4}),
    "phi3": Case("phi3", "phi3", FULL),
    "phi3-window": Case("phi3", "phi3", {"sliding_window": WINDOW}),
    "phi4-mini-long": _phi4_mini(256, original=30),
    "phi4-mini-short": _phi4_mini(96, original=100),
    "phimoe": Case("phimoe", "phimoe", PHIMOE),
    "phimoe-long": Case("phimoe", "phimoe", PHIMOE | {
        "max_position_embeddings": 4096, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0,
            "original_max_position_embeddings": 4096,
            "short_factor": [1.0, 1.0, 1.25, 1.5, 1.5, 2.0, 2.5, 3.0], "long_factor": [4.0] * 8,
            "short_mscale": 1.125, "long_mscale": 1.125,
        },
    }),
    "granite": Case("granite", "granite", GRANITE),
    "granite4": Case("granitemoehybrid", "granite", SHARED_GRANITE | {
        "num_local_experts": 0, "num_experts_per_tok": 0,
    }),
    "granitemoe": Case("granitemoe", "granitemoe", LOCAL_EXPERTS | GRANITE),
    "granitemoeshared": Case("granitemoeshared", "granitemoe", SHARED_GRANITE),
    "granite4-moe": Case("granitemoehybrid", "granitemoe", SHARED_GRANITE),
    "olmo2": Case("olmo2", "olmo2", {}),
    "olmo3": Case("olmo3", "olmo2", KINDS | {"rope_parameters": {
        "full_attention": {**YARN, "attention_factor": 1.2079441541679836},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }}),
    "olmoe": Case("olmoe", "olmoe", EXPERTS | {"norm_topk_prob": False}),
    "glm": Case("glm", "chatglm", HALF_TURNED | {"attention_bias": True}),
    "glm4": Case("glm4", "glm4", HALF_TURNED | {"attention_bias": True}),
    "glm4moe": Case("glm4_moe", "glm4moe", GROUPED | HALF_TURNED | {
        "attention_bias": True, "use_qk_norm": True,
    }),
    "glm4moe-plain": Case("glm4_moe", "glm4moe", GROUPED | HALF_TURNED | PLAIN),
    "command-r": Case("cohere", "command-r", COHERE | {"tie_word_embeddings": True}),
    "command-r-plus": Case("cohere", "command-r", COHERE | {"use_qk_norm": True}),
    "command-r7b": Case("cohere2", "cohere2", {
        "num_hidden_layers": 4, "sliding_window": WINDOW,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "layer_norm_eps": 1e-5, "logit_scale": 0.25, "tie_word_embeddings": True,
    }),
    "qwen3moe": Case("qwen3_moe", "qwen3moe", EXPERTS | {"norm_topk_prob": True}),
    "qwen3moe-plain": Case("qwen3_moe", "qwen3moe", EXPERTS | {"norm_topk_prob": False}),
    "qwen2moe": Case("qwen2_moe", "qwen2moe", EXPERTS | {"shared_expert_intermediate_size": 320}),
    "llama4-scout": Case("llama4_text", "llama4", LLAMA4),
    "llama4-plain": Case("llama4_text", "llama4", LLAMA4 | {
        "use_qk_norm": False, "attn_temperature_tuning": False, "num_experts_per_tok": 2,
    }),
    "gpt-oss": Case("gpt_oss", "gpt-oss", LOCAL_EXPERTS | {
        "sliding_window": 16, "rope_parameters": {**YARN, "truncate": False},
    }),
    "qwen3next": Case("qwen3_next", "qwen3next", DELTA_EXPERTS),
    "qwen35": Case("qwen3_5_text", "qwen35", DELTA),
    "qwen35moe": Case("qwen3_5_moe_text", "qwen35moe", DELTA_EXPERTS),
    "deepseek-v3": Case("deepseek_v3", "deepseek2", LATENT | LATENT_YARN | {"q_lora_rank": 48}),
    "deepseek-v3-plain": Case("deepseek_v3", "deepseek2", LATENT | PLAIN | {
        "q_lora_rank": None, "norm_topk_prob": False,
    }),
    "deepseek-v2": Case("deepseek_v2", "deepseek2", LATENT | LATENT_YARN | {
        "q_lora_rank": 48, "topk_method": "group_limited_greedy", "norm_topk_prob": False,
    }),
    "deepseek-v2-lite": Case("deepseek_v2", "deepseek2", LATENT | LATENT_YARN | {
        "q_lora_rank": None, "topk_method": "greedy", "norm_topk_prob": False,
    }),
}  # fmt: skip
assert {case.arch for case in CASES.values()} == set(FAMILIES)
STATEFUL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Cases of layers with states, which have no context shift."""
