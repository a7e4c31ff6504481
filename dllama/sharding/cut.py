"""A rank's cut of each tensor, in feed order. Reads through a WeightSource, sends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.models import FAMILIES
from dllama.models.tensors import Axis, Tensor
from dllama.qtypes import BLOCK
from dllama.sharding.plan import Shard
from dllama.weight_source import TensorFeed, TensorInfo, WeightSource

_OF_HEADS = {Axis.HEAD, Axis.LATENT, Axis.KV_RANK, Axis.Q_RANK}
"""The axes of what heads read, where it is not cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One tensor of a rank: where it lies in the file's tensor, and what is left of it."""

    source_name: str
    info: TensorInfo  # of the cut; its name is the rank's name for it
    rows: range | None  # None: all; of each matrix where there are several
    cols: range | None


def cut_manifest(config: ModelConfig, tensors: Mapping[str, TensorInfo], shard: Shard) -> list[Cut]:
    """Returns the rank's tensors in feed order: layer by layer, then the last norm, its vocabulary
    and the biases of both.

    Tensors of which the rank holds nothing are left out. A tied head is cut from `embed` and goes
    by the name `wcls`; the embedding itself is not fed. Columns are cut outward to whole quant
    blocks: those of another rank that come along are not kept (`TensorInfo.own_cols`). Raises
    ModelFileError where a tensor is missing.
    """
    family = FAMILIES[config.arch]
    cuts = []
    for layer in range(config.n_layers):
        for tensor in family.layer_tensors(config, layer):
            name = f"layers.{layer}.{tensor.name}"
            if _holds_some(config, tensor, shard):
                cuts.append(_cut(config, _find(tensors, name), tensor, name, shard))
    outer = {tensor.name: tensor for tensor in family.model_tensors(config)}
    head = "embed" if config.is_tied or "wcls" not in tensors else "wcls"
    biases = [name for name in outer if name not in ("embed", "norm", "wcls")]
    for name in ("norm", "wcls", *biases):
        info = _find(tensors, head if name == "wcls" else name)
        cuts.append(_cut(config, info, outer.get(name, outer["embed"]), name, shard))
    return cuts


def cut_tensors(source: WeightSource, shard: Shard) -> TensorFeed:
    """Yields a rank's tensors in feed order, each uint8 (rows, bytes of a cut row).

    The memory of a tensor is given back once the next one is asked for.
    """
    cuts = cut_manifest(source.config, source.tensors, shard)

    def arrays() -> Iterator[tuple[TensorInfo, np.ndarray]]:
        for cut in cuts:
            yield cut.info, source.read(cut.source_name, cut.rows, cut.cols)
            source.release(cut.source_name)

    return TensorFeed([cut.info for cut in cuts], arrays())


def _find(tensors: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    if name not in tensors:
        raise ModelFileError(
            f"the model has no tensor {name}, without which it cannot be computed; "
            "the file is incomplete or of another architecture"
        )
    return tensors[name]


def _holds_some(config: ModelConfig, tensor: Tensor, shard: Shard) -> bool:
    """Returns whether a rank holds any of a tensor. A rank without heads holds nothing that only
    heads read."""
    if tensor.is_once and shard.hidden.start > 0:
        return False
    if not _OF_HEADS.isdisjoint((tensor.rows, tensor.cols)) and len(shard.kv_heads) == 0:
        return False
    if tensor.cols is Axis.DELTA_HEAD:
        return len(shard.delta_heads) > 0
    axes = [axis for axis in (tensor.rows, tensor.cols) if axis is not None]
    parts = [shard.part(axis, config) for axis in axes]
    return all(part is None or len(part) > 0 for part in parts)


def _cut(config: ModelConfig, info: TensorInfo, tensor: Tensor, name: str, shard: Shard) -> Cut:
    n_rows = info.rows // info.n_experts
    rows = None if tensor.rows is None else shard.part(tensor.rows, config)
    own = shard.part(tensor.cols, config)
    cols, first_own_col, n_own_cols = own, 0, 0
    if own is not None and not tensor.is_vector:
        block = BLOCK[info.qtype].values
        cols = range(own.start // block * block, -(-own.stop // block) * block)
        first_own_col = own.start - cols.start
        n_own_cols = len(own) if len(own) < len(cols) else 0
    rows = None if rows is None or len(rows) == n_rows else rows
    cols = None if cols is None or len(cols) == info.cols else cols
    _check_bounds(info, rows, n_rows, "rows")
    _check_bounds(info, cols, info.cols, "columns")
    cut = replace(
        info, name=name, rows=info.n_experts * (n_rows if rows is None else len(rows)),
        cols=info.cols if cols is None else len(cols), first_own_col=first_own_col,
        n_own_cols=n_own_cols,
    )  # fmt: skip
    return Cut(info.name, cut, rows, cols)


def _check_bounds(info: TensorInfo, part: range | None, size: int, side: str) -> None:
    if part is not None and part.stop > size:
        raise ModelFileError(
            f"tensor {info.name} has {size} {side}, but the model's sizes ask for {part.stop}; "
            "the file does not fit its own header"
        )
