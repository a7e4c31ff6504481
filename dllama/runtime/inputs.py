"""The inputs of matrices that are cut by columns."""

from __future__ import annotations

from collections.abc import Iterable

from dllama.runtime.linear import Linear
from kernels.prepare import activations
from kernels.weights.layout import Activations


def inputs(readers: Iterable[Linear], max_rows: int) -> dict[int, Activations]:
    """Returns buffers (T, columns) for the inputs of matrices, by their columns: those of all
    layers, mostly of one shape, share one."""
    return {cols: activations(max_rows, cols) for cols in {w.cols for w in readers}}
