"""Tensors that lie in mapped files, as a WeightSource. Knows where a tensor lies and whether its
rows are stored in interleaved rotary order; not which file format put it there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.mapped import MappedFile
from dllama.formats.rope_order import RotaryPairs, half_split_order
from dllama.qtypes import BLOCK, COMPUTABLE
from dllama.weight_source import TensorInfo


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a tensor in a file. `interleaved` gives the layout of heads where the file keeps
    rotary pairs side by side (the rows 2j and 2j + 1 of a head); None where rows are in our
    order."""

    info: TensorInfo
    file: MappedFile
    offset: int
    interleaved: RotaryPairs | None = None


class MappedSource:
    """A WeightSource over mapped files; see dllama.weight_source for what it promises."""

    def __init__(
        self, config: ModelConfig, placements: Iterable[Placement], files: Sequence[MappedFile]
    ) -> None:
        self._config = config
        self._placements = {p.info.name: p for p in placements}
        self._tensors = {p.info.name: p.info for p in self._placements.values()}
        self._files = files
        for placement in self._placements.values():
            _check_bias_order(placement)

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
        place = self._placements[name]
        info = place.info
        rows = _checked_cut(rows, info.rows // info.n_experts, f"rows of {name}")
        cols = _checked_cut(cols, info.cols, f"columns of {name}")
        first, last = _cut_bytes(info, cols)
        raw: np.ndarray = place.file.view(place.offset, info.n_bytes, f"tensor {name}")
        if place.interleaved is None:
            each = raw.reshape(info.n_experts, -1, info.row_bytes)
            cut: np.ndarray = each[:, rows.start : rows.stop, first:last]
            return cut.reshape(info.n_experts * len(rows), last - first)
        raw = raw.reshape(info.rows, info.row_bytes)
        if info.rows > 1:
            cut = raw[:, first:last][half_split_order(rows, place.interleaved)]
        else:
            values = raw.reshape(info.cols, BLOCK[info.qtype].bytes)
            values = values[half_split_order(cols, place.interleaved)]
            cut = values.reshape(1, -1)[rows.start : rows.stop]
        return cut

    def release(self, name: str) -> None:
        place = self._placements[name]
        place.file.release(place.offset, place.info.n_bytes)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _checked_cut(cut: range | None, size: int, what: str) -> range:
    if cut is None:
        return range(size)
    if cut.step != 1 or not 0 <= cut.start <= size or cut.stop > size:
        raise ValueError(f"{cut} is no cut of the {size} {what}")
    return range(cut.start, max(cut.start, cut.stop))


def _cut_bytes(info: TensorInfo, cols: range) -> tuple[int, int]:
    block = BLOCK[info.qtype]
    if cols.start % block.values or cols.stop % block.values:
        raise ValueError(
            f"the columns {cols.start} to {cols.stop} of {info.name} do not begin and end at "
            f"blocks of {info.qtype.name}, which hold {block.values} values"
        )
    return cols.start // block.values * block.bytes, cols.stop // block.values * block.bytes


def _check_bias_order(place: Placement) -> None:
    """Raises ModelFileError for an interleaved bias in blocks: it cannot be requantized."""
    info = place.info
    in_blocks = info.qtype not in COMPUTABLE or BLOCK[info.qtype].values > 1
    if place.interleaved is not None and info.rows == 1 and in_blocks:
        raise ModelFileError(
            f"{place.file.path}: the bias {info.name} is stored as {info.qtype.name}; expected "
            f"F32, F16 or BF16. Convert the model again with biases in F32."
        )
