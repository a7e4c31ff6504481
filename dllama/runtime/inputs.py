"""The inputs of matrices that are cut by columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dllama.runtime.linear import Linear
from kernels.prepare import activations
from kernels.weights.layout import Activations


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of matrices that are cut by columns. Columns of another rank, which come along
    with whole quant blocks, stay zero."""

    activations: Activations  # (T, columns)
    own: np.ndarray  # (T, columns): the same memory, beginning at this rank's first column


def columns_of(w: Linear) -> tuple[int, int]:
    """Returns the key of a matrix's input: matrices of equal keys, cut by columns, share one."""
    return w.cols, w.first_own_col


def inputs(readers: Iterable[Linear], max_rows: int) -> dict[tuple[int, int], Inputs]:
    """Returns the inputs of matrices, mostly of one shape in all layers."""
    linears = {columns_of(w): w for w in readers}
    return {columns: _inputs_of(w, max_rows) for columns, w in linears.items()}


def _inputs_of(w: Linear, max_rows: int) -> Inputs:
    """Allocates the input of a matrix, with one row more than there are: the view from the first
    own column on reaches into the next row."""
    whole = activations(max_rows + 1, w.cols)
    n, width = whole.rows.shape
    begin, end = w.first_own_col, w.first_own_col + (n - 1) * width
    return Inputs(whole, whole.rows.reshape(-1)[begin:end].reshape(n - 1, width))
