"""Tensors that lie in mapped files, as a WeightSource. Knows where a tensor lies; not which file
format put it there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from dllama.config import ModelConfig
from dllama.formats.mapped import MappedFile
from dllama.qtypes import BLOCK
from dllama.weight_source import TensorInfo


class Stored(Protocol):
    """A tensor in mapped files."""

    @property
    def info(self) -> TensorInfo: ...

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the raw blocks of a checked cut, as WeightSource.read does."""
        ...

    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor that a file holds as it is computed with, at one place."""

    info: TensorInfo
    file: MappedFile
    offset: int

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns a view of the file."""
        raw = self.file.view(self.offset, self.info.n_bytes, f"tensor {self.info.name}")
        return cut_of(raw, self.info, rows, cols)

    def release(self) -> None:
        self.file.release(self.offset, self.info.n_bytes)


class MappedSource:
    """A WeightSource over mapped files; see dllama.weight_source for what it promises."""

    def __init__(
        self, config: ModelConfig, stored: Iterable[Stored], files: Sequence[MappedFile]
    ) -> None:
        self._config = config
        self._stored = {tensor.info.name: tensor for tensor in stored}
        self._tensors = {name: tensor.info for name, tensor in self._stored.items()}
        self._files = files

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return MappingProxyType(self._tensors)

    @property
    def stamp(self) -> str:
        return "\n".join(file.stamp for file in self._files)

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        info = self._tensors[name]
        rows = checked_cut(rows, info.rows // info.n_experts, f"rows of {name}")
        cols = checked_cut(cols, info.cols, f"columns of {name}")
        return self._stored[name].read(rows, cols)

    def release(self, name: str) -> None:
        self._stored[name].release()

    def drop_kept(self) -> None:
        pass  # readers share the file's pages, which the system keeps

    def close(self) -> None:
        for file in self._files:
            file.close()


def checked_cut(cut: range | None, size: int, what: str) -> range:
    """Returns the part of `size` that is asked for, all where none is. Raises ValueError."""
    if cut is None:
        return range(size)
    if cut.step != 1 or not 0 <= cut.start <= size or cut.stop > size:
        raise ValueError(f"{cut} is no cut of the {size} {what}")
    return range(cut.start, max(cut.start, cut.stop))


def cut_of(whole: np.ndarray, info: TensorInfo, rows: range, cols: range) -> np.ndarray:
    """Returns a checked cut of a whole tensor's blocks, uint8 (rows of all experts, bytes). Raises
    ValueError unless the columns are whole blocks."""
    first, last = cut_bytes(info, cols)
    each = whole.reshape(info.n_experts, -1, info.row_bytes)
    cut: np.ndarray = each[:, rows.start : rows.stop, first:last]
    return cut.reshape(info.n_experts * len(rows), last - first)


def cut_bytes(info: TensorInfo, cols: range) -> tuple[int, int]:
    """Returns where columns begin and end among the bytes of a row. Raises ValueError unless they
    are whole blocks."""
    block = BLOCK[info.qtype]
    if cols.start % block.values or cols.stop % block.values:
        raise ValueError(
            f"the columns {cols.start} to {cols.stop} of {info.name} do not begin and end at "
            f"blocks of {info.qtype.name}, which hold {block.values} values"
        )
    return cols.start // block.values * block.bytes, cols.stop // block.values * block.bytes
