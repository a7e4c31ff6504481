"""Packed weights times activations: matrix-vector, small batch and matrix-matrix in one call.

Every sum runs over the columns from first to last in one float32 accumulator (per block of 32 for
the quant types, whose inner sums are exact integers), whatever the number of tokens: a token's
result does not depend on its batch. With `units` a sum begins anew in each unit of columns, and the
units are added exactly (see sums.py): then it does not depend on where the columns are cut either.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.formats import FLOAT_TYPES, format_of
from kernels.matmul.batches import NO_TABLE, Batches
from kernels.matmul.sums import NO_UNIT, FixedSums, SumArgs
from kernels.matmul.tiles import MANY_FROM
from kernels.program import launch
from kernels.weights.layout import Activations, Packed, n_groups


def matmul(
    team: np.ndarray, w: Packed, a: Activations, n_tokens: int, out: np.ndarray | FixedSums,
    column: int = 0, unit: int = NO_UNIT, table: np.ndarray = NO_TABLE,
) -> None:  # fmt: skip
    """out[:n_tokens, column : column + w.rows] = activations @ weights.T.

    `out` (T, width) float32 must be wide enough for whole groups of 16 rows from `column` on: the
    columns after w.rows are overwritten with zeros. Sums are exact from unit to unit of `unit`
    columns, of which the last may be short; FixedSums take them unrounded.

    Of several matrices (`w.n_matrices`) each is multiplied with its own rows, which `table` gives
    (Batches); the activations of a batch are laid out as those of a product of their own.
    """
    kernels = format_of(w.format)
    sums = tuple(SumArgs.of(out, column, unit, kernels.layout.step_columns))
    # Kernels only ask where the sums go: as float32 both kinds of sums share a type's machine code.
    values = out.low.view(np.float32) if isinstance(out, FixedSums) else out
    batches = tuple(Batches(table, n_groups(w.rows), len(w.quants) // w.n_matrices))
    end = n_tokens, values, column, sums, batches
    weights: Any = (w.quants, w.scales, w.first_block)
    few: Any = (a.quants, a.scales, a.sums, a.weighted)
    many: Any = (a.quants, a.scales, a.weighted)
    if w.format in FLOAT_TYPES:
        weights, few = w.quants, a.bf16 if w.format == "bf16" else a.tiles
        many = few
    has_many = n_tokens >= MANY_FROM and kernels.multiply_many is not None
    if not has_many or len(table):
        launch(kernels.multiply, team, (team, weights, few, *end))
    if has_many:
        launch(kernels.multiply_many, team, (team, weights, many, *end))
