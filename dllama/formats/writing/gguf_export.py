"""Makes the metadata and the tensor list of a GGUF file from a ModelConfig: the inverse of
gguf_config and gguf_source. llama.cpp reads what this writes, but rules for words
that it has no name for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats.gguf_config import (
    LONG_ROPE_FACTORS,
    ROPE_FACTORS,
    SCALES,
    SHORT_ROPE_FACTORS,
    epsilon_key,
)
from dllama.formats.gguf_source import their_name
from dllama.formats.rope_order import RotaryPairs, interleaved_order
from dllama.formats.stored_views import by_stored_name
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.formats.writing.streamed import StreamedFile
from dllama.models import FAMILIES, model_tensors
from dllama.models.experts import GATING_NUMBERS
from dllama.models.latent import LOG_MULTIPLIER, log_multiplier
from dllama.models.llama4 import GROWS, GROWTH_LENGTH, GROWTH_SCALE, INTERVAL, NORMS
from dllama.models.tensors import Tensor
from dllama.models.windows import PATTERN, WINDOW, pattern_of
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

FILE_TYPE: dict[QType, int] = {
    QType.F32: 0,
    QType.F16: 1,
    QType.Q4_0: 2,
    QType.Q4_1: 3,
    QType.Q8_0: 7,
    QType.Q5_0: 8,
    QType.Q5_1: 9,
    QType.Q2_K: 10,
    QType.Q3_K: 12,
    QType.Q4_K: 15,
    QType.Q5_K: 17,
    QType.Q6_K: 18,
    QType.IQ2_XXS: 19,
    QType.IQ2_XS: 20,
    QType.IQ3_XXS: 23,
    QType.IQ1_S: 24,
    QType.IQ4_NL: 25,
    QType.IQ3_S: 26,
    QType.IQ2_S: 28,
    QType.IQ4_XS: 30,
    QType.IQ1_M: 31,
    QType.BF16: 32,
    QType.TQ1_0: 36,
    QType.TQ2_0: 37,
    QType.MXFP4: 38,
    QType.NVFP4: 39,
    QType.Q1_0: 40,
    QType.Q2_0: 41,
}
"""llama.cpp's number for "mostly of this type" (general.file_type)."""


def config_metadata(config: ModelConfig, qtype: QType) -> dict[str, object]:
    """The metadata that describes `config`, for a file whose matrices are mostly `qtype`."""
    arch = config.arch
    return {
        "general.architecture": arch,
        "general.name": config.name,
        "general.file_type": FILE_TYPE[qtype],
        "general.quantization_version": 2,
        f"{arch}.vocab_size": config.vocab_size,
        f"{arch}.context_length": config.max_seq_len,
        f"{arch}.embedding_length": config.dim,
        f"{arch}.block_count": config.n_layers,
        f"{arch}.feed_forward_length": config.dense_hidden_dim or config.hidden_dim,
        f"{arch}.rope.dimension_count": config.rotary_dim,
        f"{arch}.rope.freq_base": float(config.rope_theta),
        f"{arch}.attention.head_count": config.n_heads,
        f"{arch}.attention.head_count_kv": config.n_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.{epsilon_key(FAMILIES[arch])}": float(config.norm_epsilon),
    } | {
        f"{arch}.{key}": value
        for key, value in (
            _scaling(config.rope_scaling, has_multiplier=log_multiplier(config) > 0)
            | _experts(config)
            | _scales(config)
            | _attention(config)
            | _deltas(config)
            | latent_sizes(config)
            | _growth(config)
        ).items()
    }


def _scaling(scaling: RopeScaling | None, *, has_multiplier: bool) -> dict[str, object]:
    if scaling is None:
        return {}
    if scaling.kind is RopeScalingKind.LONGROPE:  # its tables say the kind
        return {
            "rope.scaling.original_context_length": scaling.original_max_seq_len,
            "rope.scaling.attn_factor": float(scaling.attention_factor or 1.0),
        }
    keys: dict[str, object] = {
        "type": scaling.kind.value,
        "factor": float(scaling.factor),
        "original_context_length": scaling.original_max_seq_len,
    }
    if scaling.kind is RopeScalingKind.LLAMA3:
        keys["low_freq_factor"] = float(scaling.low_freq_factor)
        keys["high_freq_factor"] = float(scaling.high_freq_factor)
    if scaling.kind is RopeScalingKind.YARN:
        keys["yarn_beta_fast"] = float(scaling.beta_fast)
        keys["yarn_beta_slow"] = float(scaling.beta_slow)
        keys["yarn_ext_factor"] = float(scaling.extrapolation)
        if scaling.attention_factor is not None and not has_multiplier:
            keys["attn_factor"] = scaling.attention_factor / (0.1 * math.log(scaling.factor) + 1.0)
    return {f"rope.scaling.{key}": value for key, value in keys.items()}


def _scales(config: ModelConfig) -> dict[str, object]:
    family = FAMILIES[config.arch]
    known = {key: field for key, field in SCALES.items() if key in family.keys}
    found = {key: getattr(config, field) for key, field in known.items()}
    if family.divides_logits:
        found["logit_scale"] = 1 / config.logit_scale
    return {key: float(scale) for key, scale in found.items() if scale is not None}


def _attention(config: ModelConfig) -> dict[str, object]:
    """Windows, and what families of their own say of scores and logits."""
    family, kinds = FAMILIES[config.arch], config.attention_layers
    said: dict[str, object] = {
        "attn_logit_softcapping": float(config.attention_softcap),
        "final_logit_softcapping": float(config.final_softcap),
    }
    keys = {key: value for key, value in said.items() if key in family.keys}
    if config.local_rope_theta is not None:
        keys["rope.freq_base_swa"] = float(config.local_rope_theta)
    windows = [kind.window for kind in kinds if kind.window is not None]
    if not windows:
        return keys | ({WINDOW: 0} if family.windows.default else {})
    keys[WINDOW] = max(windows)
    has_window = [kind.window is not None for kind in kinds]
    if has_window != pattern_of(config.n_layers, family.windows.every):
        keys[PATTERN] = np.array(has_window, np.bool_)
    return keys


def _experts(config: ModelConfig) -> dict[str, object]:
    if not config.n_experts:
        return {}
    keys: dict[str, object] = {
        "expert_count": config.n_experts,
        "expert_used_count": config.n_active_experts,
        "expert_feed_forward_length": config.hidden_dim,
        "expert_weights_norm": config.has_expert_norm,
    }
    if config.gating in GATING_NUMBERS:
        keys["expert_gating_func"] = GATING_NUMBERS[config.gating]
    if config.shared_hidden_dim:
        keys["expert_shared_feed_forward_length"] = config.shared_hidden_dim
        keys["expert_shared_count"] = config.shared_ratio
    if config.n_dense_layers:
        keys["leading_dense_block_count"] = config.n_dense_layers
    if config.n_expert_groups > 1:
        keys["expert_group_count"] = config.n_expert_groups
        keys["expert_group_used_count"] = config.n_active_groups
    if config.expert_scale != 1:
        keys["expert_weights_scale"] = float(config.expert_scale)
    return keys


def latent_sizes(config: ModelConfig) -> dict[str, object]:
    """Returns the keys, after the architecture, of latent attention: the sizes of the one key/value
    head of all heads, and of their own; none of other models."""
    sizes = config.latent
    if sizes is None:
        return {}
    keys: dict[str, object] = {
        "attention.head_count_kv": 1,
        "attention.key_length": sizes.width, "attention.value_length": sizes.kv_rank,
        "attention.key_length_mla": config.head_dim,
        "attention.value_length_mla": sizes.value_dim,
        "attention.kv_lora_rank": sizes.kv_rank,
    }  # fmt: skip
    if sizes.q_rank:
        keys["attention.q_lora_rank"] = sizes.q_rank
    if multiplier := log_multiplier(config):
        keys[LOG_MULTIPLIER] = multiplier
    return keys


def _deltas(config: ModelConfig) -> dict[str, object]:
    sizes = config.delta
    if sizes is None:
        return {}
    return {
        "full_attention_interval": sizes.interval,
        "ssm.conv_kernel": sizes.conv_len,
        "ssm.group_count": sizes.n_key_heads,
        "ssm.inner_size": sizes.n_value_heads * sizes.value_dim,
        "ssm.state_size": sizes.key_dim,
        "ssm.time_step_rank": sizes.n_value_heads,
        **rope_sections(config),
    }


def _growth(config: ModelConfig) -> dict[str, object]:
    """What Llama 4 says beside its experts, and how queries grow."""
    growth, known = config.query_growth, FAMILIES[config.arch].keys
    said: dict[str, object] = {
        INTERVAL: config.mixture_interval, NORMS: config.has_plain_qk_norm, GROWS: bool(growth),
    }  # fmt: skip
    if growth is not None:
        said |= {GROWTH_SCALE: float(growth.scale), GROWTH_LENGTH: growth.length}
    return {key: value for key, value in said.items() if key in known}


def rope_sections(config: ModelConfig) -> dict[str, object]:
    """Returns the key by which llama.cpp shares rotary pairs among the axes of pictures, where a
    family's models see some; for text the shares change nothing."""
    if not FAMILIES[config.arch].has_rope_sections:
        return {}
    n_pairs = config.rotary_dim // 2
    shares = [-(-n_pairs // 3), -(-(n_pairs - 1) // 3), n_pairs // 3, 0]
    return {"rope.dimension_sections": np.array(shares, np.int32)}


def model_stream(
    path: Path,
    config: ModelConfig,
    qtype: QType,
    qtype_of: Callable[[str], QType],
    tokenizer: dict[str, object],
) -> StreamedFile:
    """A file to write the tensors of model_tensors(config) to, in that order, then, where the
    config has rope factors, `factor_rows`. `qtype_of` gives the type by our name."""
    tensors = [
        stored_info(
            theirs,
            [
                described(config, TensorInfo(name, qtype_of(name), *tensor.shape(config)), tensor)
                for name, tensor in parts
            ],
        )
        for theirs, parts in by_stored_name(config, their_name).items()
    ]
    tensors += factor_tensors(config)
    return gguf_stream(path, config_metadata(config, qtype) | tokenizer, tensors)


def described(config: ModelConfig, info: TensorInfo, tensor: Tensor) -> TensorInfo:
    """Returns a tensor with the dimensions that GGUF files have: matrices of experts and of heads
    as several, norms of heads in rows."""
    if tensor.is_by_head:
        return replace(info, rows=info.cols // config.head_dim, cols=config.head_dim)
    return replace(info, n_experts=tensor.n_matrices(config, info.rows))


def stored_info(theirs: str, parts: Sequence[TensorInfo]) -> TensorInfo:
    """Returns the tensor of a file that holds these parts below each other. Raises ModelFileError
    where they are of several types."""
    if len({part.qtype for part in parts}) > 1:
        types = ", ".join(f"{part.name} {part.qtype.name}" for part in parts)
        raise ModelFileError(
            f"a GGUF file has one tensor {theirs} in the place of {types}; expected one type. Name "
            f"one for all with --type."
        )
    return replace(parts[0], name=theirs, rows=sum(part.rows for part in parts))


def factor_tensors(config: ModelConfig) -> list[TensorInfo]:
    """Returns the tensors of the rope factors that the config has."""
    return [TensorInfo(name, QType.F32, 1, len(row)) for name, row in _factors(config).items()]


def factor_rows(config: ModelConfig) -> list[np.ndarray]:
    """Returns the blocks of `factor_tensors`."""
    return [encode(np.array([row], np.float32), QType.F32) for row in _factors(config).values()]


def _factors(config: ModelConfig) -> dict[str, tuple[float, ...]]:
    short, long = config.rope_factors, config.long_rope_factors
    if short is None:
        return {}
    if long is None:
        return {ROPE_FACTORS: short}
    return {LONG_ROPE_FACTORS: long, SHORT_ROPE_FACTORS: short}


def in_file_order(config: ModelConfig, name: str, values: np.ndarray) -> np.ndarray:
    """`values` (rows, cols) of our tensor `name`, in the order that GGUF files have them in."""
    order = file_order(config, name)
    return values if order is None else np.take(values, order[0], order[1])


def file_order(config: ModelConfig, name: str) -> tuple[np.ndarray, int] | None:
    """Returns which of a tensor's rows (axis 0) or columns (axis 1) GGUF files have at each place,
    and the axis; None where they have our order."""
    tensor, family = model_tensors(config)[name], FAMILIES[config.arch]
    axis = int(tensor.is_vector)
    if (order := family.gguf_orders.get(tensor.gguf)) is not None:
        first = _first_row(config, name, tensor) if not order.is_of_cols else 0
        n = tensor.shape(config)[int(order.is_of_cols)]
        return np.argsort(order.places(config)[first : first + n]), int(order.is_of_cols)
    if tensor.has_pairs and family.is_interleaved:
        pairs = RotaryPairs(config.head_dim, config.rotary_dim)
        return interleaved_order(tensor.shape(config)[axis], pairs), axis
    return None


def _first_row(config: ModelConfig, name: str, tensor: Tensor) -> int:
    """Returns where a tensor of a layer begins in the one that holds it in GGUF files."""
    layer = int(name.split(".")[1])
    first = 0
    for part in FAMILIES[config.arch].layer_tensors(config, layer):
        if part.name == tensor.name:
            break
        first += part.shape(config)[0] if part.gguf == tensor.gguf else 0
    return first
