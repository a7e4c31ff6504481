"""Matrices that read the same input, packed side by side as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dllama.errors import ModelFileError
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo
from kernels.formats import QUANT_TYPES, format_of
from kernels.matmul.sums import NO_UNIT
from kernels.weights.layout import GROUP, Needs, Packed
from kernels.weights.packing import Packing


@dataclass(frozen=True, slots=True)
class Linear:
    """One or more matrices that read the same input and write side by side.

    Matrices of one type are packed as one; `parts` holds (first output column, matrix). Of several
    experts or heads there are as many of each: a row is multiplied with some of the experts', and
    with those of all heads (`is_by_head`). `cols` are this rank's. Sums over columns are exact from
    unit to unit of `unit` columns. `needs` is how the input is read.
    """

    parts: tuple[tuple[int, Packed], ...]
    cols: int
    out_dim: int
    unit: int = NO_UNIT
    is_by_head: bool = False
    needs: Needs = field(init=False)

    def __post_init__(self) -> None:
        formats = {w.format for _, w in self.parts}
        needs = Needs(
            quants=not formats.isdisjoint(QUANT_TYPES),
            tiles=not formats.isdisjoint(("f32", "f16")),
            bf16="bf16" in formats,
        )
        object.__setattr__(self, "needs", needs)

    @property
    def width(self) -> int:
        """Columns the output buffer needs: the last group of rows may reach beyond out_dim."""
        return max(at + -(-w.rows // GROUP) * GROUP for at, w in self.parts)

    @property
    def n_matrices(self) -> int:
        """Matrices of the same shape; 1 where there are neither experts nor heads."""
        return self.parts[0][1].n_matrices

    @property
    def n_bytes(self) -> int:
        return sum(w.n_bytes for _, w in self.parts)


def needs_of(*readers: Linear | None) -> Needs:
    """Returns what the matrices that read an input need of it, together."""
    needs = [reader.needs for reader in readers if reader is not None]
    return Needs(*(any(form) for form in zip(*needs, strict=True))) if needs else Needs()


class LinearBuilder:
    """Packs matrices of one input below each other, neighbours of one type as one. Rows are those
    of one expert or head where there are several.

    Nothing is copied on the way: a matrix's raw rows may be overwritten once `add` returns.
    """

    def __init__(
        self, team: np.ndarray, expected_rows: int, n_matrices: int = 1, *, is_by_head: bool = False
    ) -> None:
        self._team, self._expected_rows = team, expected_rows
        self._n_matrices, self._is_by_head = n_matrices, is_by_head
        self._parts: list[tuple[int, Packing]] = []
        self._rows = 0

    def add(self, info: TensorInfo, raw: np.ndarray) -> None:
        """Packs this rank's columns of a matrix, or of those of all experts or heads, uint8 (rows,
        bytes of a row). Raises ModelFileError."""
        rows, n_cols = info.rows // self._n_matrices, len(info.own_cols)
        if self._parts and self._parts[0][1].cols != n_cols:
            raise ModelFileError(
                f"tensor {info.name} has {n_cols} columns and what reads the same input "
                f"{self._parts[0][1].cols}; the file does not fit its own header"
            )
        max_cols = format_of(format_name(info.qtype)).max_cols
        if max_cols is not None and n_cols > max_cols:
            raise ModelFileError(
                f"tensor {info.name} has {n_cols} columns; of {info.qtype.name} the kernels "
                f"take {max_cols} at most"
            )
        if not self._continues_last(info, rows):
            room, fmt = max(self._expected_rows - self._rows, rows), format_name(info.qtype)
            packing = Packing(self._team, fmt, room, info.cols, self._n_matrices, info.own_cols)
            self._parts.append((self._rows, packing))
        self._parts[-1][1].add(raw)
        self._rows += rows

    def _continues_last(self, info: TensorInfo, rows: int) -> bool:
        if not self._parts:
            return False
        last = self._parts[-1][1]
        return last.format == format_name(info.qtype) and last.rows + rows <= last.max_rows

    def linear(self, unit: int | None = None) -> Linear:
        """Returns the matrices that were added; `unit` is that of their columns' exact sums."""
        parts = tuple((column, packing.packed()) for column, packing in self._parts)
        unit = NO_UNIT if unit is None else unit
        return Linear(parts, parts[0][1].cols, self._rows, unit, self._is_by_head)


def format_name(qtype: QType) -> str:
    """Returns the kernels' name for a storage type."""
    return qtype.name.lower()
