"""From rows as files hold them to the layout the kernels read. Values never change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.addresses import address_of
from kernels.arrays import huge
from kernels.formats import format_of
from kernels.weights.layout import BLOCK, GROUP, BlockType, Packed, n_groups


class Packing:
    """A matrix on its way into a type of `kernels.formats`: raw rows are packed as they come. Of
    several matrices of one shape, rows of all of them come at once.

    Raw rows have `raw_cols` values, of which the matrix has the columns `own`: all if None, else
    whole runs of 32 where the type is one of blocks. Memory is reserved for `max_rows` rows; rows
    never filled cost none. Raises ValueError where columns of the matrix are not in a raw row, or
    begin or end inside of a run.
    """

    def __init__(
        self, team: np.ndarray, fmt: str, max_rows: int, raw_cols: int, n_matrices: int = 1,
        own: range | None = None,
    ) -> None:  # fmt: skip
        is_whole, own = own is None, range(raw_cols) if own is None else own
        self._team, self.format, self.max_rows, self.cols = team, fmt, max_rows, len(own)
        self.raw_cols, self.rows, self.n_matrices = raw_cols, 0, n_matrices  # rows of each
        layout, self._kernel = format_of(fmt).layout, format_of(fmt).pack
        run = BLOCK if isinstance(layout, BlockType) else 1
        is_within = 0 <= own.start <= own.stop <= raw_cols
        if not is_whole and (own.start % run or own.stop % run or not is_within):
            raise ValueError(
                f"the columns {own.start} to {own.stop} of {raw_cols} values of {fmt} cannot be "
                f"packed: a matrix begins and ends at multiples of {run} within them"
            )
        self._row_bytes = -1 if raw_cols % layout.values else layout.row_bytes(raw_cols)
        first_unit = own.start // layout.values
        self._skipped_bytes = layout.row_bytes(first_unit * layout.values)
        self._first_block = (own.start - first_unit * layout.values) // run
        self._n_steps = -(-own.stop // layout.values) - first_unit
        self._stride = n_groups(max_rows)
        quant_bytes, scale_bytes = layout.group_bytes(len(own), self._first_block)
        self._quants = huge((n_matrices * self._stride, quant_bytes))
        self._scales = huge((n_matrices * self._stride, scale_bytes))

    def add(self, raw: np.ndarray) -> None:
        """Packs more rows, uint8 (rows, bytes of a row), below those before; `raw` may be reused
        afterwards. Of several matrices it has the rows of each, one matrix after the other.

        Raises ValueError where they do not fit.
        """
        if raw.shape[1] != self._row_bytes:
            raise ValueError(
                f"rows of {raw.shape[1]} bytes are not {self.raw_cols} values of {self.format}"
            )
        n_rows = len(raw) // self.n_matrices
        if n_rows * self.n_matrices != len(raw):
            raise ValueError(
                f"{len(raw)} rows are not as many of each of {self.n_matrices} matrices"
            )
        if self.rows + n_rows > self.max_rows:
            raise ValueError(
                f"{n_rows} rows more than the {self.rows} there are do not fit a matrix of "
                f"{self.max_rows}"
            )
        if raw.strides[1] != 1 or raw.dtype != np.uint8:
            raw = np.ascontiguousarray(raw, np.uint8)
        begin = address_of(raw) + self._skipped_bytes
        row_bytes, columns = raw.strides[0], (self._n_steps, self._first_block)
        for matrix in range(self.n_matrices):
            rows = begin + matrix * n_rows * row_bytes, row_bytes, n_rows
            at = matrix * self._stride * GROUP + self.rows
            args = (self._team, rows, columns, self._quants, self._scales, at)
            self._kernel(self._team, args)
        self.rows += n_rows

    def packed(self) -> Packed:
        """The matrix of the rows so far. Rows beyond the last, up to whole groups, are zeros."""
        groups = n_groups(self.rows) if self.n_matrices == 1 else len(self._quants)
        quants, scales = self._quants[:groups], self._scales[:groups]
        return Packed(
            self.format, self.rows, self.cols, quants, scales, self.n_matrices, self._first_block
        )


def pack(
    team: np.ndarray, fmt: str, raws: Sequence[np.ndarray], raw_cols: int, own: range | None = None
) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row) each, one below the other: their columns `own`.

    Raises ValueError where the bytes do not fit `raw_cols`, or the columns a matrix.
    """
    packing = Packing(team, fmt, sum(len(raw) for raw in raws), raw_cols, own=own)
    for raw in raws:
        packing.add(raw)
    return packing.packed()
