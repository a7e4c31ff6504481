"""What a config.json says, under the keys of GGUF's metadata. Knows which of its keys would change
the results in ways that this version does not compute.

Sources: the configuration classes of `transformers`, and the converter of llama.cpp for what they
are called in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.delta_keys import DELTA, delta_metadata, has_delta_nets
from dllama.formats.checkpoint.latent_keys import latent_metadata
from dllama.formats.checkpoint.rope_keys import rope_metadata
from dllama.formats.checkpoint.window_keys import CHUNKED, FULL, KINDS, window_metadata
from dllama.formats.gguf_config import epsilon_key, names_layer_norm
from dllama.models import FAMILIES, unknown_family
from dllama.models.experts import KEYS
from dllama.models.family import Family
from dllama.models.latent import LOG_MULTIPLIER

SIZES: dict[str, str] = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
}
"""Whole numbers that every config.json has, and GGUF's keys for them."""

NEUTRAL: dict[str, tuple[object, ...]] = {
    "residual_multiplier": (1,),
    "embedding_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "clip_qkv": (),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "num_local_experts": (0,),
    "num_experts": (0,),
    "n_routed_experts": (0,),
    "kv_lora_rank": (0,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "query_pre_attn_scalar": (),
    "use_bidirectional_attention": (False,),
    "no_rope_layers": ([],),
    "position_embedding_type": ("rope", "rope_gptj"),  # the second one is Cohere's
    "order_of_interleaved_layers": ("local_attn_first",),
    "rotary_pct": (1,),
    "use_parallel_block": (True,),
    "use_qk_norm": (False,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
    "moe_layer_freq": (1,),
    "swiglu_limit": (7,),  # gpt-oss's
    "swiglu_alpha": (1.702,),
}
"""Keys that some families compute with (Family.hf_keys) or know of (Family.hf_known); with another
value than these, or null, all others are refused."""

_MOST = 2**31 - 1
_ACTIVATIONS = ("hidden_act", "hidden_activation")


def config_metadata(config: Mapping[str, object], name: str, path: Path) -> dict[str, object]:
    """Returns the metadata that a GGUF file of the same model would have, without its tokenizer.
    Raises ModelFileError, which names the key, for what this version does not compute."""
    family = family_of(config, path)
    _refuse_foreign(config, family, path)
    config = {**family.hf_defaults, **config}
    if "intermediate_size" not in config and "moe_intermediate_size" in config:
        config = {**config, "intermediate_size": config["moe_intermediate_size"]}
    keys: dict[str, object] = {theirs: _whole(config, ours, path) for ours, theirs in SIZES.items()}
    for ours, theirs in family.hf_keys.items():
        if config.get(ours) not in (None, []):
            keys[theirs] = config[ours]
        elif ours in config and ours.endswith("_softcapping"):
            keys[theirs] = 0.0  # null is no cap; a key that is missing is the family's own
    keys |= delta_metadata(config, family, path)
    heads = config.get("num_key_value_heads")
    if heads is not None:
        keys["attention.head_count_kv"] = _whole(config, "num_key_value_heads", path)
    if config.get("head_dim") is not None:
        size = _whole(config, "head_dim", path)
        keys |= {"attention.key_length": size, "attention.value_length": size}
    epsilon = "layer_norm_eps" if names_layer_norm(family) else "rms_norm_eps"
    keys[epsilon_key(family)] = _above_zero(config, epsilon, path)
    keys |= window_metadata(config, path)
    keys |= rope_metadata(config, path, _head_dim(config, path), rounds_yarn=family.rounds_yarn)
    keys |= latent_metadata(config, family, path)
    if LOG_MULTIPLIER in keys:
        keys.pop("rope.scaling.attn_factor", None)
    return {
        "general.architecture": family.arch,
        "general.name": name,
        **{f"{family.arch}.{key}": value for key, value in keys.items()},
    }


def family_of(config: Mapping[str, object], path: Path) -> Family:
    """Returns the family of a config.json's `model_type`. Raises ModelFileError."""
    found = config.get("model_type")
    families = [family for family in FAMILIES.values() if found in family.hf_types]
    if len(families) > 1:  # one of them is of mixtures
        is_mixture = bool(config.get("num_local_experts"))
        families = [family for family in families if family.keys.issuperset(KEYS) == is_mixture]
    if families:
        return families[0]
    if found is not None:
        raise unknown_family(path, f"is of the model_type {str(found)[:80]!r}", found)
    part = config.get("_class_name")  # as `diffusers` has it
    raise ModelFileError(
        f"{path} names no `model_type`; every language model has one. "
        + (
            f"It is of diffusers' class {str(part)[:80]!r}, a part of a model that makes pictures. "
            f"Use a language model."
            if part is not None
            else "Download it again, or use another model."
        )
    )


def _refuse_foreign(config: Mapping[str, object], family: Family, path: Path) -> None:
    _refuse_foreign_layers(config, family, path)
    known = family.hf_known | set(family.hf_keys)
    for key, neutral in NEUTRAL.items():
        value = config.get(key)
        if value is not None and value not in neutral and key not in known:
            raise ModelFileError(
                f"{path}: {key} is {str(value)[:80]!r}, which this version does not compute for "
                f"models of the type {config['model_type']}. Use another model."
            )
    for key in _ACTIVATIONS:
        if config.get(key) not in (None, *family.activations):
            raise ModelFileError(
                f"{path}: {key} is {str(config[key])[:80]!r}; this version computes "
                f"{' and '.join(family.activations)} in models of the type "
                f"{config['model_type']}. Use another model."
            )


def _refuse_foreign_layers(config: Mapping[str, object], family: Family, path: Path) -> None:
    kinds = config.get("layer_types")
    computed: tuple[str, ...] = (*KINDS, DELTA) if has_delta_nets(family) else KINDS
    if family.windows.is_chunked:
        computed = (FULL, CHUNKED)
    foreign = [kind for kind in kinds if kind not in computed] if isinstance(kinds, list) else []
    if foreign:
        raise ModelFileError(
            f"{path}: layer_types names layers of the kind {str(foreign[0])[:80]!r}; this version "
            f"computes {' and '.join(computed)}. Use another model."
        )


def _head_dim(config: Mapping[str, object], path: Path) -> int:
    if config.get("head_dim") is not None:
        return _whole(config, "head_dim", path)
    return _whole(config, "hidden_size", path) // _whole(config, "num_attention_heads", path)


def _whole(config: Mapping[str, object], key: str, path: Path) -> int:
    value = config.get(key)
    if type(value) is int and 0 < value <= _MOST:
        return value
    raise _wrong(key, value, f"a whole number from 1 to {_MOST}", path)


def _above_zero(config: Mapping[str, object], key: str, path: Path) -> float:
    value = config.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1:
        return float(value)
    raise _wrong(key, value, "a number between 0 and 1", path)


def _wrong(key: str, value: object, expected: str, path: Path) -> ModelFileError:
    found = f"lacks {key}" if value is None else f"says {key} is {str(value)[:80]!r}"
    return ModelFileError(
        f"{path} {found}; expected {expected}. Download it again, or use another model."
    )
