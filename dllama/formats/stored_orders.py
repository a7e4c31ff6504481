"""Tensors whose rows or columns are stored in another order than ours, and numbers that are stored
as others than those that are computed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.floats import FLOAT_TYPES, floats_of
from dllama.formats.mapped_source import Stored
from dllama.models.family import Order
from dllama.qtypes import BLOCK, QType
from dllama.weight_source import TensorInfo


@dataclass(frozen=True, slots=True)
class OrderedRows:
    """A tensor whose row i is stored as row places[i]."""

    whole: Stored
    places: np.ndarray  # (rows,) int64

    @property
    def info(self) -> TensorInfo:
        return self.whole.info

    def read(self, rows: range, cols: range) -> np.ndarray:
        wanted = self.places[rows.start : rows.stop]
        first, end = (int(wanted.min()), int(wanted.max()) + 1) if len(wanted) else (0, 0)
        stored: np.ndarray = self.whole.read(range(first, end), cols)
        ordered: np.ndarray = stored[wanted - first]
        return ordered

    def release(self) -> None:
        self.whole.release()


@dataclass(frozen=True, slots=True)
class OrderedColumns:
    """A tensor whose column i is stored as column places[i], whole blocks of them together."""

    whole: Stored
    places: np.ndarray  # (cols,) int64

    @property
    def info(self) -> TensorInfo:
        return self.whole.info

    def read(self, rows: range, cols: range) -> np.ndarray:
        info = self.info
        blocks = block_order(self.places, BLOCK[info.qtype].values)
        stored = self.whole.read(rows, range(info.cols)).reshape(len(rows), len(blocks), -1)
        wanted = slice(*(at // BLOCK[info.qtype].values for at in (cols.start, cols.stop)))
        ordered: np.ndarray = stored[:, blocks[wanted]]
        return ordered.reshape(len(rows), -1)

    def release(self) -> None:
        self.whole.release()


def block_order(places: np.ndarray, size: int) -> np.ndarray:
    """Returns the order of blocks of `size` columns. Raises ValueError where one is torn."""
    if len(places) % size:
        raise ValueError(f"{len(places)} columns are no whole blocks of {size}")
    blocks = places.reshape(-1, size)
    if not np.array_equal(blocks, blocks[:, :1] // size * size + np.arange(size)):
        raise ValueError(f"the order of columns tears blocks of {size}")
    order: np.ndarray = blocks[:, 0] // size
    return order


def ordered(stored: Stored, order: Order | None, config: ModelConfig, path: Path) -> Stored:
    """Returns a stored tensor in our order, where a family says that it is in another. Raises
    ModelFileError where that would tear its blocks."""
    if order is None:
        return stored
    places = order.places(config)
    if not order.is_of_cols:
        return OrderedRows(stored, places)
    try:
        block_order(places, BLOCK[stored.info.qtype].values)
    except ValueError as error:
        raise ModelFileError(
            f"{path}: {stored.info.name} is stored as {stored.info.qtype.name}, and {error}; this "
            f"version cannot bring it into its own order. Convert the model with another type."
        ) from None
    return OrderedColumns(stored, places)


@dataclass(frozen=True, slots=True)
class Changed:
    """Numbers that are computed from those that are stored; F32."""

    whole: Stored
    change: Callable[[np.ndarray], np.ndarray]

    @property
    def info(self) -> TensorInfo:
        return replace(self.whole.info, qtype=QType.F32)

    def read(self, rows: range, cols: range) -> np.ndarray:
        stored = floats_of(self.whole.read(rows, cols), self.whole.info.qtype)
        changed = np.ascontiguousarray(self.change(stored), np.float32)
        return changed.view(np.uint8)

    def release(self) -> None:
        self.whole.release()


def changed(
    stored: Stored, change: Callable[[np.ndarray], np.ndarray] | None, path: Path
) -> Stored:
    """Returns a stored tensor with what a family does to its numbers. Raises ModelFileError where
    they are no plain numbers."""
    if change is None:
        return stored
    if stored.info.qtype not in FLOAT_TYPES:
        raise ModelFileError(
            f"{path}: {stored.info.name} is stored as {stored.info.qtype.name}; expected F32, F16 "
            f"or BF16. Use another model."
        )
    return Changed(stored, change)
