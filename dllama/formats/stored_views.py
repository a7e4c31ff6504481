"""Tensors that are views of others: some of the rows of a stored tensor, or its rows in our rotary
order. They read through what they view, whatever file and type it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.mapped_source import Stored
from dllama.formats.rope_order import RotaryPairs, half_split_order
from dllama.formats.turned import turned
from dllama.models import model_tensors
from dllama.models.tensors import Tensor
from dllama.qtypes import BLOCK, COMPUTABLE
from dllama.weight_source import TensorInfo

Named = tuple[str, Tensor]
"""One of our tensors: its full name, and its row of the table."""


@dataclass(frozen=True, slots=True)
class PartOf:
    """Rows of a stored tensor from `first_row` on, of several experts these rows of each; or values
    of a vector from `first_col` on."""

    info: TensorInfo
    whole: Stored
    first_row: int = 0
    first_col: int = 0

    def read(self, rows: range, cols: range) -> np.ndarray:
        part: np.ndarray = self.whole.read(
            _moved(rows, self.first_row), _moved(cols, self.first_col)
        )
        return part

    def release(self) -> None:
        self.whole.release()


def _moved(cut: range, by: int) -> range:
    return range(cut.start + by, cut.stop + by)


@dataclass(frozen=True, slots=True)
class HalfSplit:
    """A tensor whose rows (of a vector: columns) are stored with rotary pairs side by side: the
    rows 2j and 2j + 1 of a head."""

    whole: Stored
    pairs: RotaryPairs

    @property
    def info(self) -> TensorInfo:
        return self.whole.info

    def read(self, rows: range, cols: range) -> np.ndarray:
        info = self.info
        if info.rows > 1:
            cut: np.ndarray = self.whole.read(range(info.rows), cols)
            ordered: np.ndarray = cut[half_split_order(rows, self.pairs)]
            return ordered
        values = self.whole.read(range(1), range(info.cols)).reshape(info.cols, -1)
        turned: np.ndarray = values[half_split_order(cols, self.pairs)]
        return turned.reshape(1, -1)[rows.start : rows.stop]

    def release(self) -> None:
        self.whole.release()


def half_split(whole: Stored, pairs: RotaryPairs, path: Path) -> HalfSplit:
    """Returns the tensor in our order. Raises ModelFileError for a bias in blocks: it cannot be
    requantized."""
    info = whole.info
    in_blocks = info.qtype not in COMPUTABLE or BLOCK[info.qtype].values > 1
    if info.rows == 1 and in_blocks:
        raise ModelFileError(
            f"{path}: the bias {info.name} is stored as {info.qtype.name}; expected "
            f"F32, F16 or BF16. Convert the model again with biases in F32."
        )
    return HalfSplit(whole, pairs)


def by_stored_name(
    config: ModelConfig,
    their_name: Callable[[str, Tensor], str],
    as_stored: Callable[[str, Tensor], Tensor] = lambda name, row: row,
) -> dict[str, list[Named]]:
    """Returns a model's tensors by the names of the stored ones that hold them. Tensors that have
    one name lie in it below each other, in the table's order. `as_stored` returns what stands in
    the place of a row of the table, for one of our tensors by its name."""
    found: dict[str, list[Named]] = {}
    for name, row in model_tensors(config).items():
        tensor = as_stored(name, row)
        found.setdefault(their_name(name, tensor), []).append((name, tensor))
    return found


def joint_shape(config: ModelConfig, parts: Sequence[Named]) -> tuple[int, int]:
    """Returns (rows, cols) of a stored tensor that holds these parts below each other; of several
    experts the rows of all, of vectors the values one after another."""
    shapes = [tensor.shape(config) for _, tensor in parts]
    if parts[0][1].is_flat:
        return 1, sum(cols for _, cols in shapes)
    return sum(rows for rows, _ in shapes), shapes[0][1]


def parts_of(config: ModelConfig, whole: Stored, parts: Sequence[Named]) -> list[Stored]:
    """Returns each of the tensors that a stored one holds, below each other in this order; the
    stored one itself where it holds one. Those whose matrices the table has the other way round are
    turned."""
    if len(parts) == 1:
        return [whole]
    table = model_tensors(config)
    found: list[Stored] = []
    first = 0
    for name, tensor in parts:
        rows, cols = tensor.shape(config)
        info = replace(whole.info, name=name, rows=rows, cols=cols)
        if tensor.is_flat:
            part, n = PartOf(info, whole, first_col=first), cols
        else:
            part, n = PartOf(info, whole, first_row=first), rows // info.n_experts
        is_turned = tensor.rows is not table[name].rows
        found.append(turned(part, name, table[name], config) if is_turned else part)
        first += n
    return found
