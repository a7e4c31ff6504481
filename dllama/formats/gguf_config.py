"""Makes a ModelConfig of GGUF metadata. Knows the metadata keys of the Llama family and which of
them would change the results in ways that this version does not compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats.fused_names import fused
from dllama.formats.gguf import GgufFile
from dllama.formats.gguf_metadata import ArchKeys, GgufMetadata
from dllama.formats.layout import check_heads
from dllama.models import FAMILIES, unknown_family
from dllama.models.blocks import QK_NORM, QKV_BIAS
from dllama.models.experts import CHOICE_BIAS, check_experts
from dllama.models.family import Family
from dllama.models.latent import LOG_MULTIPLIER
from dllama.models.llama4 import GROWTH_SCALE
from dllama.models.tensors import Tensor
from dllama.models.unsupported import GENERAL_TYPES
from dllama.models.windows import windowed_layers
from dllama.qtypes import QType

NEUTRAL: dict[str, float] = {
    "expert_count": 0,
    "embedding_scale": 1,
    "residual_scale": 1,
    "logit_scale": 1,
    "attention.scale": 0,
    "attention.clamp_kqv": 0,
    "attn_logit_softcapping": 0,
    "final_logit_softcapping": 0,
    GROWTH_SCALE: 0,
}
"""Keys that some families compute with (Family.keys); with any other value than this one the files
of all others are refused."""

SCALES: dict[str, str] = {
    "attention.scale": "attention_scale",
    "embedding_scale": "embedding_scale",
    "residual_scale": "residual_scale",
    "logit_scale": "logit_scale",
}
"""Keys of families that compute with them, and the fields of ModelConfig that they give."""

N_FURTHER = "nextn_predict_layers"  # the number of layers at the end that predict further tokens
ROPE_FACTORS = "rope_freqs.weight"
SHORT_ROPE_FACTORS = "rope_factors_short.weight"
LONG_ROPE_FACTORS = "rope_factors_long.weight"
FACTORS = (ROPE_FACTORS, SHORT_ROPE_FACTORS, LONG_ROPE_FACTORS)
"""Tensors that divide the frequencies of rotary pairs."""

OPTIONAL: dict[str, Tensor] = {
    "has_qkv_bias": QKV_BIAS[0],
    "has_qk_norm": QK_NORM[0],
    "has_choice_bias": CHOICE_BIAS,
}
"""Fields of ModelConfig that are true where some layer has a tensor (Family.optional)."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the files of a model say of it: metadata under GGUF's keys, and which tensors it has."""

    path: Path  # named in errors
    metadata: GgufMetadata
    n_tensors: int
    vocab_size: int
    has_head: bool  # of its own: where not, the embedding table is the head too
    optional: frozenset[str]  # keys of OPTIONAL whose tensors are there
    tokenizer_size: int | None
    rope_factors: tuple[float, ...] | None = None
    long_rope_factors: tuple[float, ...] | None = None  # with them, the others are the short ones


def described(file: GgufFile) -> Described:
    """What a GGUF file says of its model. Raises ModelFileError, for a file of another kind too."""
    kind = GENERAL_TYPES.get(str(file.metadata.get("general.type")))
    if kind is not None:
        raise ModelFileError(f"{file.path} is {kind}.")
    _family(file.metadata, file.path)
    return Described(
        file.path,
        file.metadata,
        n_tensors=len(file.tensors),
        vocab_size=file.tensor("token_embd.weight").rows,
        has_head="output.weight" in file.tensors,
        optional=optional_fields(file.tensors, lambda tensor: tensor.gguf)
        | optional_fields(file.tensors, lambda tensor: fused(tensor).gguf),
        tokenizer_size=file.metadata.array_length("tokenizer.ggml.tokens"),
        rope_factors=_factors(file, ROPE_FACTORS) or _factors(file, SHORT_ROPE_FACTORS),
        long_rope_factors=_factors(file, LONG_ROPE_FACTORS),
    )


def optional_fields(names: Collection[str], called: Callable[[Tensor], str]) -> frozenset[str]:
    """Returns the fields of OPTIONAL whose tensors are among `names`, by what files call them."""
    return frozenset(
        field
        for field, tensor in OPTIONAL.items()
        if any(name.endswith(f".{called(tensor)}") for name in names)
    )


def model_config(file: Described) -> ModelConfig:
    """The shape of the model that is described. Raises ModelFileError where the architecture is
    unknown, a key is missing or wrong, or asks for something this version does not compute."""
    family = _family(file.metadata, file.path)
    arch = family.arch
    keys = ArchKeys(file.metadata, arch, file.path)
    _refuse_foreign_features(keys, family, file)
    n_layers = _n_layers(keys, file)
    n_heads = keys.integer("attention.head_count")
    dim = keys.integer("embedding_length")
    found = {} if family.config_of is None else family.config_of(keys)
    fields: dict[str, object] = {
        **_windows(keys, family, n_layers),
        "hidden_dim": keys.integer(
            "feed_forward_length", keys.count("expert_feed_forward_length") or None
        ),
        **{field: True for field in family.optional if field in file.optional},
        **family.always,
        **_scales(keys, family),
        **({} if "head_dim" in found else _heads(keys, dim, n_heads, file)),
        **found,
    }
    config = ModelConfig(
        arch=arch,
        name=_name(file),
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        vocab_size=file.vocab_size,
        max_seq_len=keys.integer("context_length"),
        norm_epsilon=keys.number(epsilon_key(family)),
        rope_theta=keys.number("rope.freq_base", 10000.0),
        rope_scaling=_rope_scaling(keys, family, file),
        rope_factors=file.rope_factors,
        long_rope_factors=file.long_rope_factors,
        is_tied=not file.has_head,
        tokenizer_size=file.tokenizer_size,
        **fields,  # type: ignore[arg-type]
    )
    check_heads(config, file.path)
    check_experts(config, file.path)
    _check_rope(config, file)
    return config


def _scales(keys: ArchKeys, family: Family) -> dict[str, object]:
    known = {key: field for key, field in SCALES.items() if key in family.keys}
    said = {key: field for key, field in known.items() if keys.raw(key) not in (None, 0)}
    found = {field: keys.number(key) for key, field in said.items()}
    if family.divides_logits and "logit_scale" in found:
        found["logit_scale"] = 1 / found["logit_scale"]
    return dict(found)


def epsilon_key(family: Family) -> str:
    """Returns the metadata key of the number that norms add before the root."""
    kind = "" if names_layer_norm(family) else "rms_"
    return f"attention.layer_norm_{kind}epsilon"


def names_layer_norm(family: Family) -> bool:
    """Returns whether files call that number the one of a norm that takes the mean off."""
    return bool(family.always.get("has_layer_norm")) and not family.has_rms_epsilon


def _family(metadata: GgufMetadata, path: Path) -> Family:
    arch = metadata.get("general.architecture")
    if isinstance(arch, str) and arch in FAMILIES:
        return FAMILIES[arch]
    if arch is None:
        raise ModelFileError(
            f"{path} names no architecture (general.architecture); every model has one. Convert it "
            f"again, or use another model."
        )
    raise unknown_family(path, f"is of the architecture {str(arch)[:80]!r}", arch)


def _name(file: Described) -> str:
    name = file.metadata.get("general.name")
    return name if isinstance(name, str) and name else file.path.stem


def _refuse_foreign_features(keys: ArchKeys, family: Family, file: Described) -> None:
    for key, neutral in NEUTRAL.items():
        if key not in keys or key in family.keys:
            continue
        value = keys.raw(key)
        if value != neutral:
            raise ModelFileError(
                f"{file.path}: {key} is {value!r}, which this version does not compute in models "
                f"of this architecture. Use another model."
            )


def _n_layers(keys: ArchKeys, file: Described) -> int:
    """Returns the number of layers, without those at the end that predict further tokens."""
    n_layers = keys.integer("block_count") - keys.count(N_FURTHER)
    if not 0 < n_layers <= file.n_tensors:
        raise ModelFileError(
            f"{file.path} promises {n_layers} layers, but holds only {file.n_tensors} tensors. "
            f"The file is incomplete or corrupt; download it again."
        )
    return n_layers


def _heads(keys: ArchKeys, dim: int, n_heads: int, file: Described) -> dict[str, object]:
    """Returns the fields of key/value heads, and of how many of their values are rotated."""
    head_dim = _head_dim(keys, dim, n_heads, file)
    rotated = keys.integer("rope.dimension_count", head_dim)
    return {
        "n_kv_heads": keys.integer("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "partial_rotary_dim": None if rotated == head_dim else rotated,
    }


def _head_dim(keys: ArchKeys, dim: int, n_heads: int, file: Described) -> int:
    if "attention.key_length" not in keys and dim % n_heads:
        raise ModelFileError(
            f"{file.path}: {dim} values do not divide into {n_heads} heads, and the metadata has "
            f"no attention.key_length. The file is corrupt; convert the model again."
        )
    head_dim = keys.integer("attention.key_length", dim // n_heads or 1)
    value_length = keys.integer("attention.value_length", head_dim)
    if value_length != head_dim:
        raise ModelFileError(
            f"{file.path}: keys have {head_dim} values a head and values {value_length}; this "
            f"version expects the same for both. Use another model."
        )
    return head_dim


def _windows(keys: ArchKeys, family: Family, n_layers: int) -> dict[str, object]:
    """Returns the fields of sliding windows."""
    rule, theta = family.windows, None
    if rule.has_local_rope:
        is_said = "rope.freq_base_swa" in keys
        theta = keys.number("rope.freq_base_swa") if is_said else rule.local_theta
    layers = windowed_layers(keys, rule, n_layers)
    return {"attention_layers": layers, "local_rope_theta": theta}


def _check_rope(config: ModelConfig, file: Described) -> None:
    if config.rotary_dim > config.head_dim or config.rotary_dim % 2:
        raise ModelFileError(
            f"{file.path}: rotary embedding covers {config.rotary_dim} of the {config.head_dim} "
            f"values of a head; expected an even number of them. The file is corrupt; download or "
            f"convert it again."
        )
    if config.rope_theta <= 1:
        raise ModelFileError(
            f"{file.path}: rope.freq_base is {config.rope_theta}; it must be above 1. The file is "
            f"corrupt; download or convert it again."
        )
    for factors in (config.rope_factors, config.long_rope_factors):
        if factors is not None and len(factors) != config.rotary_dim // 2:
            raise ModelFileError(
                f"{file.path}: there are {len(factors)} rope factors; heads of "
                f"{config.rotary_dim} rotated values need {config.rotary_dim // 2}. The file is "
                f"corrupt."
            )


def _rope_scaling(keys: ArchKeys, family: Family, file: Described) -> RopeScaling | None:
    if file.long_rope_factors is not None:
        return _longrope(keys, file)
    if "rope.scale_linear" in keys:  # what files said before rope.scaling.* existed
        kind, factor = "linear", keys.number("rope.scale_linear")
    else:
        kind = keys.text("rope.scaling.type", "linear").lower()
        factor = keys.number("rope.scaling.factor", 1.0)
    is_plain = factor == 1.0 and kind != RopeScalingKind.LONGROPE
    if kind == "none" or (is_plain and kind in RopeScalingKind._value2member_map_):
        return None
    if kind == RopeScalingKind.LONGROPE:
        raise ModelFileError(
            f"{file.path}: RoPE is scaled by factors (longrope), which the file lacks "
            f"({LONG_ROPE_FACTORS}). It is incomplete; convert the model again."
        )
    if kind not in RopeScalingKind._value2member_map_:
        known = ", ".join(RopeScalingKind)
        raise ModelFileError(
            f"{file.path}: RoPE is scaled in the way {kind!r}; this version knows {known}. "
            f"Use another model."
        )
    scaling = RopeScaling(
        kind=RopeScalingKind(kind),
        factor=factor,
        original_max_seq_len=keys.integer(
            "rope.scaling.original_context_length", keys.integer("context_length")
        ),
        low_freq_factor=keys.number("rope.scaling.low_freq_factor", 1.0),
        high_freq_factor=keys.number("rope.scaling.high_freq_factor", 4.0),
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        extrapolation=keys.number("rope.scaling.yarn_ext_factor", 1.0, may_be_zero=True),
        attention_factor=_attention_factor(keys, family.keys, kind, factor),
        is_rounded=family.rounds_yarn,
    )
    if scaling.high_freq_factor < scaling.low_freq_factor:
        raise ModelFileError(
            f"{file.path}: rope.scaling.high_freq_factor is {scaling.high_freq_factor}; it must "
            f"not be below low_freq_factor, {scaling.low_freq_factor}. The file is corrupt."
        )
    return scaling


def _longrope(keys: ArchKeys, file: Described) -> RopeScaling:
    if file.rope_factors is None:
        raise ModelFileError(
            f"{file.path} has rope factors for long contexts and none for short ones. The file is "
            f"incomplete; convert the model again."
        )
    return RopeScaling(
        RopeScalingKind.LONGROPE,
        factor=1.0,
        original_max_seq_len=keys.integer("rope.scaling.original_context_length"),
        attention_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )


def _attention_factor(
    keys: ArchKeys, own: frozenset[str], kind: str, factor: float
) -> float | None:
    """GGUF's attn_factor multiplies the factor that YaRN computes; ours replaces it. With the
    logarithm's multiplier 1, and where it makes scores larger, there is none."""
    multiplier = keys.raw(LOG_MULTIPLIER)
    if kind == RopeScalingKind.YARN and (multiplier == 1 or (multiplier and LOG_MULTIPLIER in own)):
        return 1.0
    if kind != RopeScalingKind.YARN or "rope.scaling.attn_factor" not in keys:
        return None
    yarn = 0.1 * float(np.log(factor)) + 1.0 if factor > 1 else 1.0
    return keys.number("rope.scaling.attn_factor") * yarn


def _factors(file: GgufFile, name: str) -> tuple[float, ...] | None:
    if name not in file.tensors:
        return None
    tensor = file.tensor(name)
    if tensor.qtype is not QType.F32 or tensor.n_bytes is None:
        raise ModelFileError(
            f"{file.path}: {name} is stored as {tensor.type_name}; expected F32. "
            f"Convert the model again with a current converter."
        )
    raw = tensor.file.view(tensor.offset, tensor.n_bytes, name)
    factors = np.frombuffer(raw.tobytes(), "<f4")
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ModelFileError(
            f"{file.path}: {name} holds factors that are no numbers above 0. The file is "
            f"corrupt; download it again."
        )
    return tuple(factors.tolist())


def tokenizer_kind(metadata: Mapping[str, object]) -> str | None:
    """`tokenizer.ggml.model`, where the file says it: "llama" (SPM), "gpt2" (BPE) or another."""
    kind = metadata.get("tokenizer.ggml.model")
    return kind if isinstance(kind, str) else None
