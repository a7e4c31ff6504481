"""What all ranks know of a model, whatever they hold of it. The units it is cut in: a sum over
columns, or over the vocabulary, is made unit by unit, so that all cuts give the same bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

from dllama.config import DeltaSizes, ModelConfig
from dllama.limits import Range
from dllama.models import model_tensors
from dllama.models.tensors import Axis
from dllama.qtypes import BLOCK
from dllama.weight_source import TensorInfo
from kernels.formats import QUANT_TYPES

ACTIVATION_BLOCK = 32
"""Columns of one int8 scale. What is computed as on one node is not cut inside of them; larger
blocks of weights may be: each rank holds its own columns of such a block (dllama/sharding/cut.py).
"""
HIDDEN_UNITS = (512, 256, 128, 64, 32, 16, 4, 2, 1)
HIDDEN_PARTS = 32  # units of the hidden columns at least, where blocks allow it: shares are even
VOCAB_PARTS = 256  # units of the vocabulary at most: a row of logits sends a pair for each
VOCAB_UNIT = 16  # rows in a packed group

Unit = Annotated[int, Range(1, (1 << 31) - 1)]


@dataclass(frozen=True, slots=True)
class SumUnits:
    """The units of a model's sums: columns of `wo`, columns of `w2`, rows of the vocabulary; and
    columns of `w2` in the dense layers of a mixture, and of what follows gated delta nets."""

    heads: Unit
    hidden: Unit
    vocab: Unit
    dense: Unit = 1
    delta: Unit = 1
    normed_quants: bool = False  # all that layers do with their normed input reads it in 8 bits

    def by_axis(self, config: ModelConfig) -> dict[Axis, int]:
        """Returns the units of the columns of each axis that matrices are summed over."""
        shared = self.hidden * max(1, config.shared_ratio)
        return {
            Axis.HEADS: self.heads, Axis.HIDDEN: self.hidden, Axis.SHARED: shared,
            Axis.DELTA_VALUES: self.delta,
            Axis.DENSE: self.dense,
        }  # fmt: skip


def sum_units(
    config: ModelConfig, *, head_align: int = 1, hidden_align: int = 1, dense_align: int = 1,
    delta_align: int = 1,
) -> SumUnits:  # fmt: skip
    """Returns the units of a model whose blocks of `wo` and `w2` have so many columns."""
    group_cols = config.group_size * config.value_dim
    return SumUnits(
        heads=head_bundle(config, head_align) * group_cols,
        hidden=hidden_unit(config.hidden_dim, hidden_align),
        vocab=vocab_unit(config.vocab_size),
        dense=hidden_unit(config.dense_hidden_dim, dense_align),
        delta=_delta_columns(config, delta_align),
    )


def reads_normed_quants(config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> bool:
    """Returns whether all that layers do with a normed input reads it quantized. Rows are sorted by
    experts as floats."""
    table = model_tensors(config)
    return not config.n_experts and all(
        info.qtype.name.lower() in QUANT_TYPES
        for name, info in tensors.items()
        if name.startswith("layers.") and name in table
        if table[name].cols is Axis.DIM and not table[name].is_vector
    )


def units_of(config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> SumUnits:
    """Returns the units of a model file."""
    units = sum_units(
        config,
        head_align=column_block(config, tensors, Axis.HEADS),
        hidden_align=column_block(config, tensors, Axis.HIDDEN),
        dense_align=column_block(config, tensors, Axis.DENSE),
        delta_align=column_block(config, tensors, Axis.DELTA_VALUES),
    )
    return replace(units, normed_quants=reads_normed_quants(config, tensors))


def column_block(config: ModelConfig, tensors: Mapping[str, TensorInfo], axis: Axis) -> int:
    """Returns the columns of the blocks in which the matrices over an axis are stored: a multiple
    of each layer's."""
    table = model_tensors(config)
    blocks = [
        BLOCK[info.qtype].values
        for name, info in tensors.items()
        if name in table and table[name].cols is axis and not table[name].is_vector
    ]
    return math.lcm(*blocks) if blocks else 1


HEAD_AXES = (
    Axis.HEADS, Axis.GATED_HEADS, Axis.QUERY_HEADS, Axis.KV_HEADS, Axis.QUERIES, Axis.KEY_UP,
)  # fmt: skip
"""The axes that are cut by KV heads."""


@lru_cache(maxsize=16)
def head_widths(config: ModelConfig) -> Mapping[Axis, int]:
    """Returns the values of each axis that belong to one KV head, with its query heads."""
    return {axis: axis.size(config) // config.n_kv_heads for axis in HEAD_AXES}


def head_bundle(config: ModelConfig, align: int) -> int:
    """Returns how many KV heads are handed out together, so that no block of activations is cut."""
    align = min(align, ACTIVATION_BLOCK)
    return align // math.gcd(align, config.group_size * config.value_dim)


def delta_unit(sizes: DeltaSizes, align: int) -> int:
    """Returns how many key heads of gated delta nets are handed out together: whole bundles, so
    that no block of activations is cut."""
    n_shared = sizes.n_value_heads // sizes.n_key_heads
    align = min(align, ACTIVATION_BLOCK)
    return sizes.bundle * (align // math.gcd(align, sizes.bundle * n_shared * sizes.value_dim))


def _delta_columns(config: ModelConfig, align: int) -> int:
    """Returns the columns of value heads that are handed out together; 1 where there are none."""
    sizes = config.delta
    if sizes is None:
        return 1
    n_value_heads = delta_unit(sizes, align) * sizes.n_value_heads // sizes.n_key_heads
    return n_value_heads * sizes.value_dim


def hidden_unit(hidden_dim: int, align: int) -> int:
    """Returns the hidden columns that are handed out together, for weights in blocks of `align`."""
    finest = min(align, ACTIVATION_BLOCK)
    for unit in HIDDEN_UNITS:
        fits = unit % finest == 0 and hidden_dim % unit == 0
        if fits and hidden_dim // unit >= HIDDEN_PARTS:
            return unit
    return finest


def vocab_unit(vocab_size: int) -> int:
    """Returns the rows of the head that are handed out together."""
    if vocab_size <= VOCAB_PARTS:
        return 1
    unit = VOCAB_UNIT
    while -(-vocab_size // unit) > VOCAB_PARTS:
        unit *= 2
    return unit
