"""The seam between files and everything that computes: tensors by our names, rows in our order.

Names are those of a family's table (dllama/models): `embed`, `norm`, `wcls` (absent where the head
is tied), and per layer i `layers.{i}.` + a name of the table, such as `wq` or `norm1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np

from dllama.config import ModelConfig
from dllama.limits import Range
from dllama.qtypes import BLOCK, RUN, QType, packed_row_bytes, row_bytes

Side = Annotated[int, Range(1, (1 << 28) - 1)]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `rows` x `cols` values of `qtype`, row-major; vectors have one row.

    A rank's cut by columns travels as whole blocks, of which some columns may be another rank's:
    its own begin at `first_own_col` and are `n_own_cols`, or all from there on if that is 0. A
    tensor of `n_experts` matrices has the rows of all of them, one matrix after the other.
    """

    name: str
    qtype: QType
    rows: Side
    cols: Side
    first_own_col: Annotated[int, Range(0, (1 << 28) - 1)] = 0
    n_experts: Annotated[int, Range(1, 1 << 16)] = 1
    n_own_cols: Annotated[int, Range(0, (1 << 28) - 1)] = 0

    @property
    def own_cols(self) -> range:
        """The columns that belong to the rank, of those that travel."""
        n_own = self.n_own_cols or self.cols - self.first_own_col
        return range(self.first_own_col, self.first_own_col + n_own)

    @property
    def is_cut_between_runs(self) -> bool:
        """Whether the rank's columns are among those that travel, and begin and end where packed
        blocks may be cut."""
        own, run = self.own_cols, min(BLOCK[self.qtype].values, RUN)
        is_within = 0 <= own.start < own.stop <= self.cols
        return is_within and own.start % run == 0 and own.stop % run == 0

    @property
    def layer(self) -> int | None:
        """The index of the tensor's layer; None outside of layers."""
        prefix, _, rest = self.name.partition(".")
        return int(rest.partition(".")[0]) if prefix == "layers" else None

    @property
    def short_name(self) -> str:
        """The name in the family's table: `wq` of `layers.3.wq`."""
        return self.name.rpartition(".")[2]

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.qtype, self.cols)

    @property
    def n_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def packed_bytes(self) -> int:
        """Bytes in a rank's memory, up to whole groups of rows: of its own columns."""
        return self.rows * packed_row_bytes(self.qtype, self.own_cols)

    def read_bytes(self, config: ModelConfig) -> int:
        """Returns the bytes that one token reads: of several experts those that it takes."""
        n_read = min(self.n_experts, config.n_active_experts or 1)
        return self.packed_bytes * n_read // self.n_experts


@dataclass(frozen=True, slots=True)
class TensorFeed:
    """A rank's tensors in transit: first the manifest of all, then each tensor's raw blocks.

    `arrays` are uint8 (rows, bytes of a row) in the order of `manifest`; an array may be
    overwritten once the next one is asked for.
    """

    manifest: Sequence[TensorInfo]
    arrays: Iterable[tuple[TensorInfo, np.ndarray]]

    def __iter__(self) -> Iterator[tuple[TensorInfo, np.ndarray]]:
        return iter(self.arrays)


class WeightSource(Protocol):
    """A model's weights, read a cut at a time. Implementations map files and copy nothing before it
    is needed."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    @property
    def stamp(self) -> str:
        """Returns a text that is another one once any of the files has been changed or replaced;
        "" where the source is no file."""
        ...

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        """Returns the raw blocks of a cut, uint8 of shape (len(rows), bytes of one cut row). Of a
        tensor of several experts `rows` are those of each, and the cuts of all follow one another.

        Rows are in our order (RoPE in half-split style). `cols` must begin and end at block borders
        (ValueError). A view of the file where rows need no reordering. Raises ModelFileError where
        the file is damaged, UnknownTensorType where there is no kernel for the type.
        """
        ...

    def release(self, name: str) -> None:
        """Lets the system take back the memory behind a tensor; it can be read again later."""
        ...

    def drop_kept(self) -> None:
        """Lets go of what is kept in memory for several readers; called when all have read."""
        ...

    def close(self) -> None: ...
