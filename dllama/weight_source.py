"""The seam between files and everything that computes: tensors by our names, rows in our order.

Names: `embed`, `norm`, `wcls` (absent where the head is tied), and per layer i
`layers.{i}.` + `norm1 wq wk wv wo norm2 w1 w2 w3` (w1 gate, w3 up, w2 down), with
`bq bk bv` and `q_norm k_norm` where the model has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np

from dllama.config import ModelConfig
from dllama.limits import Range
from dllama.qtypes import QType, row_bytes

Side = Annotated[int, Range(1, (1 << 28) - 1)]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `rows` x `cols` values of `qtype`, row-major; vectors have one row.

    A rank's cut by columns holds whole blocks, of which some columns may be another rank's: its
    own begin at `first_own_col`.
    """

    name: str
    qtype: QType
    rows: Side
    cols: Side
    first_own_col: Annotated[int, Range(0, (1 << 28) - 1)] = 0

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.qtype, self.cols)

    @property
    def n_bytes(self) -> int:
        return self.rows * self.row_bytes


class WeightSource(Protocol):
    """A model's weights, read a cut at a time. Implementations map files and copy late."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        """The raw blocks of a cut, uint8 of shape (len(rows), bytes of one cut row).

        Rows are in the house's order (RoPE in half-split style). `cols` must begin and end at
        block borders (ValueError). A view of the file where rows need no reordering.
        Raises ModelFileError where the file is damaged, UnknownTensorType where there is no
        kernel for the type.
        """
        ...

    def release(self, name: str) -> None:
        """Lets the system take back the memory behind a tensor; it can be read again later."""
        ...

    def close(self) -> None: ...
