"""Pieces: the parts of a model's tensors that are hashed, kept and sent as they are.

Their borders do not depend on the plan, so that ranks of different plans need the same pieces: a
cut over heads ends where a piece does, other cuts take some more than they need at both ends.
Pure arithmetic; `read_piece` alone looks at a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from dllama.config import ModelConfig
from dllama.limits import Range
from dllama.models import model_tensors
from dllama.models.tensors import Axis, Tensor
from dllama.qtypes import BLOCK, row_bytes
from dllama.sharding.cut import Cut, cut_manifest
from dllama.sharding.plan import Shard
from dllama.sharding.units import HEAD_AXES, head_widths
from dllama.weight_source import Side, TensorInfo, WeightSource

HIDDEN_UNIT = 256  # hidden columns in a piece: 0.3 MB of Q4_0 where dim is 2048
VOCAB_UNIT = 1024  # rows of the head in a piece
WHOLE_BYTES = 64 << 10  # a tensor up to this size is one piece


class Piece(NamedTuple):
    """The name of a piece within a model: tile number `tile` of an expert's matrix."""

    tensor: str
    expert: int
    tile: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a rank's cut of a tensor lies within whole pieces.

    Its `n_tiles` pieces follow one another along the columns or the rows; each has `unit` of them
    but the last, which has `last_unit`. The cut begins `skip` into the first piece. A tensor of
    several experts has these pieces for each expert, one expert after the other.
    """

    is_by_cols: bool
    n_tiles: Annotated[int, Range(1, 1 << 24)]
    unit: Side
    last_unit: Side
    skip: Annotated[int, Range(0, (1 << 28) - 1)]

    @property
    def size(self) -> int:
        """Rows or columns of all pieces of an expert together."""
        return (self.n_tiles - 1) * self.unit + self.last_unit

    def spans(self, cut_size: int) -> Iterator[tuple[int, range, range]]:
        """Yields for each piece of an expert its own size, the part of it that belongs to the cut
        of `cut_size` rows or columns, and where in the cut that part goes."""
        for tile in range(self.n_tiles):
            size = self.unit if tile < self.n_tiles - 1 else self.last_unit
            start = tile * self.unit - self.skip  # of the piece, within the cut
            first, end = max(start, 0), min(start + size, cut_size)
            yield size, range(first - start, end - start), range(first, end)


class SizedPiece(NamedTuple):
    """A piece, a tiling that it belongs to, and its bytes."""

    piece: Piece
    tiling: Tiling
    n_bytes: int


@dataclass(frozen=True, slots=True)
class TiledCut:
    """A cut and the pieces that hold it; `first` is the tile where it begins."""

    cut: Cut
    tiling: Tiling
    first: int

    def sized(self) -> Iterator[SizedPiece]:
        """Yields the pieces with their bytes."""
        sizes = piece_sizes(self.cut.info, self.tiling)
        for piece, n_bytes in zip(self.pieces(), sizes, strict=True):
            yield SizedPiece(piece, self.tiling, n_bytes)

    def pieces(self) -> Iterator[Piece]:
        for expert in range(self.cut.info.n_experts):
            for tile in range(self.first, self.first + self.tiling.n_tiles):
                yield Piece(self.cut.source_name, expert, tile)


def tiled_cuts(
    config: ModelConfig, tensors: Mapping[str, TensorInfo], shard: Shard
) -> list[TiledCut]:
    """Returns a rank's cuts in feed order, with the pieces that hold them."""
    table = model_tensors(config)
    return [
        _tiled(config, table[cut.source_name], tensors[cut.source_name], cut)
        for cut in cut_manifest(config, tensors, shard)
    ]


def pieces_of(
    config: ModelConfig, tensors: Mapping[str, TensorInfo], shard: Shard
) -> list[SizedPiece]:
    """Returns the pieces that a rank needs, in feed order."""
    return [sized for tiled in tiled_cuts(config, tensors, shard) for sized in tiled.sized()]


def whole_model(config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[TiledCut]:
    """Returns the pieces of all that any rank may need."""
    everything = Shard(
        0,
        1,
        range(config.n_kv_heads),
        range(config.hidden_dim),
        range(config.vocab_size),
        range(config.dense_hidden_dim),
        range(0 if config.delta is None else config.delta.n_key_heads),
    )
    return tiled_cuts(config, tensors, everything)


def piece_bytes(info: TensorInfo, tiling: Tiling, size: int) -> int:
    """Returns the bytes of a piece of `size` rows or columns of a tensor (or of a cut of it)."""
    n_rows = info.rows // info.n_experts
    return n_rows * row_bytes(info.qtype, size) if tiling.is_by_cols else size * info.row_bytes


def piece_sizes(info: TensorInfo, tiling: Tiling) -> list[int]:
    """Returns the bytes of all pieces of a cut, in their order."""
    units = [tiling.unit] * (tiling.n_tiles - 1) + [tiling.last_unit]
    return [piece_bytes(info, tiling, unit) for unit in units] * info.n_experts


def read_piece(source: WeightSource, sized: SizedPiece) -> np.ndarray:
    """Returns the bytes of a piece as uint8 (rows, bytes of a row of the piece); a view of the
    file where it lies there like that. Raises ModelFileError."""
    piece, tiling, _ = sized
    source_info = source.tensors[piece.tensor]
    n_experts = source_info.n_experts
    size = source_info.cols if tiling.is_by_cols else source_info.rows // n_experts
    part = range(piece.tile * tiling.unit, min((piece.tile + 1) * tiling.unit, size))
    if n_experts == 1:
        rows, cols = (None, part) if tiling.is_by_cols else (part, None)
        return source.read(piece.tensor, rows, cols)
    whole = source.read(piece.tensor)  # a part of the matrices of all experts would be copied
    mine = whole[len(whole) // n_experts * piece.expert :][: len(whole) // n_experts]
    if not tiling.is_by_cols:
        return mine[part.start : part.stop]
    first, last = (row_bytes(source_info.qtype, column) for column in (part.start, part.stop))
    return mine[:, first:last]


def _tiled(config: ModelConfig, tensor: Tensor, info: TensorInfo, cut: Cut) -> TiledCut:
    is_by_cols = tensor.cols in _UNITS
    whole = info.cols if is_by_cols else info.rows // info.n_experts
    unit = _unit(config, tensor, info, is_by_cols=is_by_cols, whole=whole)
    part = (cut.cols if is_by_cols else cut.rows) or range(whole)
    assert (cut.rows if is_by_cols else cut.cols) is None, "no tensor is cut along both sides"
    first, end = part.start // unit, -(-part.stop // unit)
    last_unit = min(end * unit, whole) - (end - 1) * unit
    skip = part.start - first * unit
    return TiledCut(cut, Tiling(is_by_cols, end - first, unit, last_unit, skip), first)


def _unit(
    config: ModelConfig, tensor: Tensor, info: TensorInfo, *, is_by_cols: bool, whole: int
) -> int:
    axis = tensor.cols if is_by_cols else tensor.rows
    if axis not in _UNITS or tensor.is_vector or info.n_bytes <= WHOLE_BYTES:
        return whole
    unit = _UNITS[axis](config)
    if is_by_cols:
        unit = math.lcm(unit, BLOCK[info.qtype].values)
    return min(unit, whole)


def _bundled(config: ModelConfig, size: int) -> int:
    """Returns the part of `size` that belongs to a bundle of a gated delta net's heads."""
    assert config.delta is not None, "only gated delta nets have such heads"
    return size * config.delta.bundle // config.delta.n_key_heads


def _of_head(axis: Axis) -> Callable[[ModelConfig], int]:
    return lambda config: head_widths(config)[axis]


_UNITS: dict[Axis | None, Callable[[ModelConfig], int]] = {
    **{axis: _of_head(axis) for axis in HEAD_AXES},
    Axis.HIDDEN: lambda config: HIDDEN_UNIT,
    Axis.SHARED: lambda config: HIDDEN_UNIT,
    Axis.DENSE: lambda config: HIDDEN_UNIT,
    Axis.VOCAB: lambda config: VOCAB_UNIT,
    Axis.DELTA_KEYS: lambda config: _bundled(config, config.delta_key_dim),
    Axis.DELTA_VALUES: lambda config: _bundled(config, config.delta_value_dim),
    Axis.DELTA_HEADS: lambda config: _bundled(config, config.n_delta_heads),
    Axis.DELTA_GATES: lambda config: _bundled(config, config.n_delta_gates),
}
"""Rows or columns in a piece, for each axis that is cut over ranks."""
