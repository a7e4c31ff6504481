"""A rank's cut of each tensor, in feed order. Reads through a WeightSource, sends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.sharding.plan import SPLIT, Shard, Split, block_of
from dllama.weight_source import TensorInfo, WeightSource

LAYER_ORDER = tuple(name for name in SPLIT if name not in ("norm", "wcls"))
ATTENTION = frozenset(("wq", "wk", "wv", "bq", "bk", "bv", "q_norm", "k_norm", "wo"))
OPTIONAL = frozenset(("bq", "bk", "bv", "q_norm", "k_norm"))
VECTORS = frozenset(("norm1", "norm2", "norm", "bq", "bk", "bv", "q_norm", "k_norm"))
BY_COLUMNS = ("wo", "w2")


@dataclass(frozen=True, slots=True)
class Cut:
    """One tensor of a rank: where it lies in the file's tensor, and what is left of it."""

    source_name: str
    info: TensorInfo  # of the cut; its name is the rank's name for it
    rows: range | None  # None: all
    cols: range | None


def cut_manifest(config: ModelConfig, tensors: Mapping[str, TensorInfo], shard: Shard) -> list[Cut]:
    """The rank's tensors in feed order: layer by layer, then the last norm and its vocabulary.

    A rank without heads gets no attention tensor but norm1. A tied head is cut from `embed` and
    goes by the name `wcls`. Columns are cut outward to whole quant blocks: those of another rank
    that come along are multiplied by zeros (`TensorInfo.first_own_col`). Raises ModelFileError
    where a tensor is missing.
    """
    blocks = {name: block_of(tensors.values(), name) for name in BY_COLUMNS}
    cuts = []
    for layer in range(config.n_layers):
        for name in LAYER_ORDER:
            if name in ATTENTION and not len(shard.kv_heads):
                continue
            full_name = f"layers.{layer}.{name}"
            if name in OPTIONAL and full_name not in tensors:
                continue
            info, block = _find(tensors, full_name), blocks.get(name, 1)
            cuts.append(_cut(config, info, name, full_name, shard, block))
    cuts.append(_cut(config, _find(tensors, "norm"), "norm", "norm", shard))
    head = "embed" if config.is_tied or "wcls" not in tensors else "wcls"
    cuts.append(_cut(config, _find(tensors, head), "wcls", "wcls", shard))
    return cuts


def cut_tensors(source: WeightSource, shard: Shard) -> Iterator[tuple[TensorInfo, np.ndarray]]:
    """Reads a rank's tensors in feed order, each uint8 (rows, bytes of a cut row).

    Memory behind a tensor is given back once the next one is asked for.
    """
    for cut in cut_manifest(source.config, source.tensors, shard):
        yield cut.info, source.read(cut.source_name, cut.rows, cut.cols)
        source.release(cut.source_name)


def _find(tensors: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    if name not in tensors:
        raise ModelFileError(
            f"the model has no tensor {name}, without which it cannot be computed; "
            "the file is incomplete or of another architecture"
        )
    return tensors[name]


def _cut(
    config: ModelConfig, info: TensorInfo, name: str, full_name: str, shard: Shard, block: int = 1
) -> Cut:
    rows: range | None = None
    cols: range | None = None
    part = _part(config, SPLIT[name], shard)
    first_own_col = 0
    if part is not None and (name in BY_COLUMNS or name in VECTORS):  # vectors have one row
        held = _whole_blocks(part, block)
        first_own_col = part.start - held.start
        cols = held if len(held) != info.cols else None
    elif part is not None:
        rows = part if len(part) != info.rows else None
    _check_bounds(info, rows, cols)
    n_rows = info.rows if rows is None else len(rows)
    n_cols = info.cols if cols is None else len(cols)
    cut = TensorInfo(full_name, info.qtype, n_rows, n_cols, first_own_col)
    return Cut(info.name, cut, rows, cols)


def _whole_blocks(cols: range, block: int) -> range:
    """The blocks that some columns touch."""
    return range(cols.start // block * block, -(-cols.stop // block) * block)


def _part(config: ModelConfig, split: Split, shard: Shard) -> range | None:
    """The range of rows or columns that a split gives a shard; None for all."""
    if split is Split.WHOLE:
        return None
    if split in (Split.QUERY_ROWS, Split.QUERY_COLS):
        return _scaled(shard.kv_heads, config.group_size * config.head_dim)
    if split is Split.KV_ROWS:
        return _scaled(shard.kv_heads, config.head_dim)
    return shard.vocab if split is Split.VOCAB_ROWS else shard.hidden


def _scaled(heads: range, width: int) -> range:
    return range(heads.start * width, heads.stop * width)


def _check_bounds(info: TensorInfo, rows: range | None, cols: range | None) -> None:
    for part, size, side in ((rows, info.rows, "rows"), (cols, info.cols, "columns")):
        if part is not None and part.stop > size:
            raise ModelFileError(
                f"tensor {info.name} has {size} {side}, but the model's sizes ask for "
                f"{part.stop}; the file does not fit its own header"
            )
