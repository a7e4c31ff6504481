"""What becomes of each tensor of a file that is quantized. Pure: names, shapes and types only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dllama.errors import ConfigError
from dllama.formats.floats import FLOAT_TYPES
from dllama.formats.writing.encode import ENCODABLE
from dllama.qtypes import BLOCK, COMPUTABLE, QType
from dllama.quantizing.mixes import (
    ALIASES,
    MIXES,
    Mix,
    Place,
    Role,
    head_type,
    mixed_type,
    role_of,
)
from dllama.weight_source import TensorInfo

KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp|ffn_gate_tid2eid|altup|laurel|per_layer_model_proj|ssm_conv1d"
    r"|shortconv\.conv|indexer\.[kq]_proj|attn_rel_b|position_embd|token_types"
    r"|time_mix_(first|w0|w1|w2|v0|v1|v2|a0|a1|a2|g1|g2|decay_w1|decay_w2|lerp_fused)"
)
"""Matrices that are small, and cost much where they are rounded."""

FALLBACKS = {
    QType.IQ4_XS: QType.IQ4_NL,
    QType.Q2_K: QType.Q4_0,
    QType.Q3_K: QType.Q4_0,
    QType.Q4_K: QType.Q5_0,
    QType.Q5_K: QType.Q5_1,
    QType.Q6_K: QType.Q8_0,
}
"""By the type: one of smaller blocks, where rows are no whole blocks of 256."""

_LAYERS_OF_70B = 80
_LAYER = re.compile(r"^blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked for: a mix, whether all matrices get its type (`is_pure`), the types of single
    matrices, and whether quantized ones may be quantized again. `types` are patterns of names with
    the type of what they match."""

    mix: Mix
    is_pure: bool = False
    output: QType | None = None
    embedding: QType | None = None
    types: tuple[tuple[str, QType], ...] = ()
    keeps_output: bool = False
    allows_requantize: bool = False


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What the mixes' rules ask of a model."""

    n_layers: int
    n_queries_per_key: int
    n_experts: int
    is_70b: bool


def mix_named(name: str) -> Mix:
    """Returns the mix of a name in upper or lower case. Raises ConfigError."""
    full = ALIASES.get(name.upper(), name.upper())
    if full not in MIXES:
        raise ConfigError(
            f"models cannot be quantized to {name[:40]!r}; the types are {', '.join(MIXES)}, and "
            f"{', '.join(ALIASES)} for their M"
        )
    return MIXES[full]


def sizes_of(metadata: Mapping[str, object]) -> ModelSizes:
    """Returns the sizes that GGUF metadata tell of; 0 and 1 where they do not."""
    arch = metadata.get("general.architecture")

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if isinstance(value, np.ndarray):  # one for each layer
            value = value[0].item() if value.size else default
        return value if isinstance(value, int) else default

    n_layers, heads = number("block_count", 0), number("attention.head_count", 1)
    key_heads = number("attention.head_count_kv", heads)
    is_70b = (
        isinstance(arch, str)
        and arch in ("llama", "qwen2")
        and n_layers == _LAYERS_OF_70B
        and heads != key_heads
    )
    return ModelSizes(
        n_layers, heads // key_heads if key_heads else 0, number("expert_count", 0), is_70b
    )


def chosen_types(
    tensors: Sequence[TensorInfo], sizes: ModelSizes, recipe: Recipe
) -> dict[str, QType]:
    """Returns the type of each tensor by its name in GGUF files. Raises ConfigError where one would
    have to be quantized twice, or cannot be read."""
    has_output = any(role_of(info.name) is Role.OUTPUT for info in tensors)
    chosen = {info.name: info.qtype for info in tensors}
    for info, place in _placed([info for info in tensors if _may_change(info)], sizes):
        qtype = _asked_for(info, recipe, has_output) or _mixed(info, place, recipe, has_output)
        chosen[info.name] = fitting(qtype, info.cols)
    if recipe.keeps_output:
        chosen |= {i.name: i.qtype for i in tensors if role_of(i.name) is Role.OUTPUT}
    for info in tensors:
        _check_source(info, chosen[info.name], recipe)
    return chosen


def fitting(qtype: QType, cols: int) -> QType:
    """Returns a type whose blocks fit rows of `cols` values: the one asked for, or the nearest."""
    for candidate in (qtype, FALLBACKS.get(qtype, qtype)):
        if cols % BLOCK[candidate].values == 0:
            return candidate
    return QType.F16


def _may_change(info: TensorInfo) -> bool:
    is_matrix = info.rows > 1 and info.name.endswith("weight")
    return is_matrix and not KEPT.search(info.name)


def _placed(tensors: Sequence[TensorInfo], sizes: ModelSizes) -> Iterator[tuple[TensorInfo, Place]]:
    """Yields each tensor with its place: the number of its layer, or, of matrices that not every
    layer has, its number among them."""
    values = sorted(_layer(info.name) for info in tensors if role_of(info.name) is Role.V)
    for info in tensors:
        number, n = _layer(info.name), sizes.n_layers
        if role_of(info.name) is Role.V:
            number, n = values.index(number), len(values)
        yield info, Place(number, n, sizes.n_queries_per_key, sizes.n_experts, sizes.is_70b)


def _layer(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else 0


def _asked_for(info: TensorInfo, recipe: Recipe, has_output: bool) -> QType | None:
    role = role_of(info.name)
    if role is Role.EMBEDDING and recipe.embedding is not None:
        return recipe.embedding
    is_head = role is Role.OUTPUT or (role is Role.EMBEDDING and not has_output)
    if is_head and recipe.output is not None:
        return recipe.output
    return next((q for pattern, q in recipe.types if re.search(pattern, info.name)), None)


def _mixed(info: TensorInfo, place: Place, recipe: Recipe, has_output: bool) -> QType:
    mix, role = recipe.mix, role_of(info.name)
    if recipe.is_pure or mix.qtype in FLOAT_TYPES:
        return mix.qtype
    if role is Role.OUTPUT or (role is Role.EMBEDDING and not has_output):
        return head_type(mix, info.cols)
    return mixed_type(mix, role, place, is_of_experts=info.n_experts > 1)


def _check_source(info: TensorInfo, qtype: QType, recipe: Recipe) -> None:
    if qtype is info.qtype:
        return
    if info.qtype not in COMPUTABLE or qtype not in ENCODABLE:
        raise ConfigError(
            f"{info.name} is stored as {info.qtype.name} and cannot be made into {qtype.name}"
        )
    if info.qtype not in FLOAT_TYPES and not recipe.allows_requantize:
        raise ConfigError(
            f"{info.name} is {info.qtype.name}, which is quantized already: quantized twice it is "
            "much worse than quantized once. Begin with a file in F32, F16 or BF16, or give "
            "--allow-requantize"
        )
