"""Plans which rank holds which part of a model. Pure arithmetic: knows no sockets, files or
threads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dllama.config import ModelConfig
from dllama.errors import ShardError
from dllama.models.tensors import Axis
from dllama.sharding.units import (
    column_block,
    delta_unit,
    head_bundle,
    head_widths,
    hidden_unit,
    vocab_unit,
)
from dllama.weight_source import TensorInfo


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of one rank: KV heads (with their query heads), hidden columns (of each expert),
    vocabulary rows, the columns of a mixture's dense layers, and key heads of gated delta nets
    (with their value heads)."""

    rank: int
    world_size: int
    kv_heads: range
    hidden: range
    vocab: range
    dense: range = range(0)
    delta_heads: range = range(0)

    def part(self, axis: Axis, config: ModelConfig) -> range | None:
        """Returns the values of an axis that this rank holds; None for all of an axis that is not
        cut."""
        if (width := head_widths(config).get(axis)) is not None:
            return _scaled(self.kv_heads, width)
        if axis is Axis.HIDDEN:
            return self.hidden
        if axis is Axis.SHARED:
            return _scaled(self.hidden, config.shared_ratio)
        if (width := _delta_width(axis, config)) is not None:
            return _scaled(self.delta_heads, width)
        if axis is Axis.DENSE:
            return self.dense
        return self.vocab if axis is Axis.VOCAB else None


def _delta_width(axis: Axis, config: ModelConfig) -> int | None:
    """Returns the values of an axis that belong to a key head of gated delta nets; None for other
    axes."""
    sizes = config.delta
    if sizes is None:
        return None
    n_shared = sizes.n_value_heads // sizes.n_key_heads
    widths = {
        Axis.DELTA_KEYS: sizes.key_dim, Axis.DELTA_VALUES: n_shared * sizes.value_dim,
        Axis.DELTA_HEADS: n_shared, Axis.DELTA_GATES: 2 * n_shared,
    }  # fmt: skip
    return widths.get(axis)


def plan_shards(
    config: ModelConfig, shares: Sequence[float], *, hidden_align: int = 1, head_align: int = 1,
    dense_align: int = 1, delta_align: int = 1,
) -> list[Shard]:  # fmt: skip
    """Cuts a model so that the bytes of rank r are shares[r] / sum(shares) of the whole.

    `hidden_align` and `head_align` are the quant blocks of w2's and wo's columns, `dense_align`
    those of w2 in the dense layers of a mixture, `delta_align` those of what follows gated delta
    nets. Heads are handed out whole (in bundles where a head group ends inside a block of
    activations), so some ranks may get more than their share of attention, or none; hidden columns
    make up for it.
    Raises ShardError where a rank would hold no hidden column or no vocabulary row.
    """
    world_size = len(shares)
    if not shares or not all(math.isfinite(s) and s > 0 for s in shares):
        given = ",".join(f"{s:g}" for s in shares) or "none"
        raise ShardError(f"shares must be positive numbers, one per node; got {given}")
    if config.hidden_dim % hidden_align:
        raise ShardError(
            f"the hidden size {config.hidden_dim} is no multiple of {hidden_align}, the quant "
            "block of w2; the model file does not fit its own header"
        )
    weights = [s / sum(shares) for s in shares]
    heads = _cut_heads(config, weights, head_align)
    vocab = _cut_vocab(config, weights)
    delta = _cut_delta(config, weights, delta_align)
    hidden = _cut_hidden(config, weights, heads, vocab, delta, hidden_align)
    dense = _cut_dense(config, hidden, dense_align)
    return [
        Shard(rank, world_size, *ranges)
        for rank, ranges in enumerate(zip(heads, hidden, vocab, dense, delta, strict=True))
    ]


def plan_for(
    config: ModelConfig, tensors: Mapping[str, TensorInfo], shares: Sequence[float]
) -> list[Shard]:
    """Returns the plan for a model file: block borders are taken from the types of its own
    tensors."""
    return plan_shards(config, shares, **aligns_of(config, tensors))


def aligns_of(config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Returns what `plan_shards` is told of the blocks of a model file."""
    return {
        "hidden_align": column_block(config, tensors, Axis.HIDDEN),
        "head_align": column_block(config, tensors, Axis.HEADS),
        "dense_align": column_block(config, tensors, Axis.DENSE),
        "delta_align": column_block(config, tensors, Axis.DELTA_VALUES),
    }


def _scaled(part: range, width: int) -> range:
    return range(part.start * width, part.stop * width)


def _cut_heads(config: ModelConfig, weights: Sequence[float], head_align: int) -> list[range]:
    bundle = head_bundle(config, head_align)
    n_bundles = -(-config.n_kv_heads // bundle)
    counts = apportion(n_bundles, weights, minimum=0)
    return _ranges(counts, bundle, config.n_kv_heads)


def _cut_delta(config: ModelConfig, weights: Sequence[float], align: int) -> list[range]:
    sizes = config.delta
    if sizes is None:
        return [range(0)] * len(weights)
    unit = delta_unit(sizes, align)
    counts = apportion(-(-sizes.n_key_heads // unit), weights, minimum=0)
    return _ranges(counts, unit, sizes.n_key_heads)


def _cut_vocab(config: ModelConfig, weights: Sequence[float]) -> list[range]:
    unit = vocab_unit(config.vocab_size)
    n_units = -(-config.vocab_size // unit)
    if n_units < len(weights):
        raise ShardError(
            f"rank {n_units} would hold 0 of {config.vocab_size} vocabulary rows, which are cut at "
            f"multiples of {unit} (world_size={len(weights)}); use at most {n_units} nodes",
            rank=n_units,
            world_size=len(weights),
        )
    return _ranges(apportion(n_units, weights, minimum=1), unit, config.vocab_size)


def _cut_hidden(
    config: ModelConfig,
    weights: Sequence[float],
    heads: Sequence[range],
    vocab: Sequence[range],
    delta: Sequence[range],
    align: int,
) -> list[range]:
    world_size = len(weights)
    unit = hidden_unit(config.hidden_dim, align)
    n_units = config.hidden_dim // unit
    if n_units < world_size:
        raise ShardError(
            f"rank {n_units} would hold 0 of {config.hidden_dim} hidden columns, which can be cut "
            f"at multiples of {unit} (world_size={world_size}, "
            f"n_kv_heads={config.n_kv_heads}); use at most {n_units} nodes",
            rank=n_units,
            world_size=world_size,
        )
    # values: the types may differ between tensors, but not by enough to matter to a balance
    head_values = _head_values(config) * config.n_kv_layers
    delta_values = _delta_values(config)
    of_dense = config.n_other_layers * config.dense_hidden_dim / config.hidden_dim
    hidden_values = 3 * config.dim * (config.hidden_blocks + of_dense)
    held = [
        len(h) * head_values + len(v) * config.dim + len(d) * delta_values
        for h, v, d in zip(heads, vocab, delta, strict=True)
    ]
    total = sum(held) + config.hidden_dim * hidden_values
    missing = [max(0.0, w * total - h) for w, h in zip(weights, held, strict=True)]
    return _ranges(apportion(n_units, missing, minimum=1), unit, config.hidden_dim)


def _head_values(config: ModelConfig) -> int:
    """Returns the weights of a KV head, with its query heads, in a layer that attends."""
    sizes = config.latent
    if sizes is None:
        per_group = config.group_size * (2 + config.has_output_gate) + 2
        return per_group * config.head_dim * config.dim
    queries = config.head_dim * (sizes.q_rank or config.dim)
    return (
        queries + sizes.kv_rank * (sizes.nope_dim + sizes.value_dim) + sizes.value_dim * config.dim
    )


def _delta_values(config: ModelConfig) -> int:
    """Returns the weights of a key head, with its value heads, in all gated delta nets."""
    keys, values, heads = (
        _delta_width(axis, config) or 0
        for axis in (Axis.DELTA_KEYS, Axis.DELTA_VALUES, Axis.DELTA_HEADS)
    )
    n_layers = config.n_layers - config.n_kv_layers
    return (2 * keys + 3 * values + 2 * heads) * config.dim * n_layers


def _cut_dense(config: ModelConfig, hidden: Sequence[range], align: int) -> list[range]:
    """Cuts the columns of a mixture's dense layers as nearly as their units allow in proportion to
    the columns of experts."""
    size = config.dense_hidden_dim
    if not size:
        return [range(0)] * len(hidden)
    unit = hidden_unit(size, align)
    counts = apportion(-(-size // unit), [len(part) for part in hidden], minimum=0)
    return _ranges(counts, unit, size)


def apportion(n_units: int, weights: Sequence[float], *, minimum: int) -> list[int]:
    """Returns a number of units for each weight, n_units in all, each at least `minimum`.

    Largest remainder; ties go to the lowest rank, so that every node computes the same plan.
    """
    total = sum(weights)
    quotas = [n_units * w / total for w in weights]
    counts = [max(minimum, math.floor(q + 1e-9)) for q in quotas]
    ranks = range(len(weights))
    while sum(counts) > n_units:
        able = [r for r in ranks if counts[r] > minimum]
        counts[max(able, key=lambda r: counts[r] - quotas[r])] -= 1
    while sum(counts) < n_units:
        counts[max(ranks, key=lambda r: round(quotas[r] - counts[r], 9))] += 1
    return counts


def _ranges(counts: Sequence[int], unit: int, end: int) -> list[range]:
    """Returns consecutive ranges of counts[r] units; the last unit may be short."""
    ranges, start = [], 0
    for count in counts:
        stop = min(end, start + count * unit)
        ranges.append(range(start, stop))
        start = stop
    return ranges
