"""From rows as files hold them to the layout the kernels read. Values never change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.arrays import huge
from kernels.formats import format_of
from kernels.weights.layout import Packed, n_groups


class Packing:
    """A matrix on its way into a type of `kernels.formats`: raw rows are packed as they come.

    Memory is reserved for `max_rows` rows of `cols` values; rows never filled cost none.
    Raises ValueError where `cols` values do not end at a block.
    """

    def __init__(self, team: np.ndarray, fmt: str, max_rows: int, cols: int) -> None:
        self._team, self.format, self.max_rows, self.cols = team, fmt, max_rows, cols
        self.rows = 0
        layout, self._kernel = format_of(fmt).layout, format_of(fmt).pack
        self._n_steps = layout.n_steps(cols)
        self._row_bytes = -1 if cols % layout.values else layout.row_bytes(cols)
        groups, (quant_bytes, scale_bytes) = n_groups(max_rows), layout.group_bytes(cols)
        self._quants = huge((groups, quant_bytes))
        self._scales = huge((groups, scale_bytes))

    def add(self, raw: np.ndarray) -> None:
        """Packs more rows, uint8 (rows, bytes of a row), below those before; `raw` may be reused
        afterwards.

        Raises ValueError where they do not fit.
        """
        if raw.shape[1] != self._row_bytes:
            raise ValueError(
                f"rows of {raw.shape[1]} bytes are not {self.cols} values of {self.format}"
            )
        if self.rows + len(raw) > self.max_rows:
            raise ValueError(
                f"{len(raw)} rows more than the {self.rows} there are do not fit a matrix of "
                f"{self.max_rows}"
            )
        if raw.strides[1] != 1 or raw.dtype != np.uint8:
            raw = np.ascontiguousarray(raw, np.uint8)
        rows = raw.__array_interface__["data"][0], raw.strides[0], len(raw)
        args = (self._team, rows, self._n_steps, self._quants, self._scales, self.rows)
        self._kernel(self._team, args)
        self.rows += len(raw)

    def packed(self) -> Packed:
        """The matrix of the rows so far. Rows beyond the last, up to whole groups, are zeros."""
        groups = n_groups(self.rows)
        return Packed(
            self.format, self.rows, self.cols, self._quants[:groups], self._scales[:groups]
        )


def pack(team: np.ndarray, fmt: str, raws: Sequence[np.ndarray], cols: int) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row) each, one below the other.

    Raises ValueError where the bytes do not fit `cols`.
    """
    packing = Packing(team, fmt, sum(len(raw) for raw in raws), cols)
    for raw in raws:
        packing.add(raw)
    return packing.packed()
