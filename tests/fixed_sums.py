"""Exact sums made of float numbers, as oracles and doubles need them."""

from __future__ import annotations

import numpy as np

from kernels.matmul.sums import QUANTUM, FixedSums

GROUP = 16


def fixed_sums(x: np.ndarray) -> FixedSums:
    """Rounds x (T, cols) to multiples of the quantum; columns up to whole groups are zero."""
    n_rows, cols = x.shape
    sums = FixedSums.zeros(n_rows, -(-cols // GROUP) * GROUP)
    is_none = ~np.isfinite(x)
    values = np.rint(np.where(is_none, 0, x).astype(np.float64) / QUANTUM).astype(np.int64)
    values[is_none] = -(1 << 63)
    sums.low[:, :cols] = (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    sums.high[:, :cols] = values >> 32
    is_wide = np.zeros(sums.low.shape, bool)
    is_wide[:, :cols] = values != sums.low[:, :cols]
    sums.wide[:] = is_wide.reshape(n_rows, -1, GROUP).any(axis=2)
    return sums


def values_of(sums: FixedSums) -> np.ndarray:
    """The exact values (T, width) float64; NaN for what is no number."""
    wide = np.repeat(sums.wide.astype(bool), GROUP, axis=1)
    whole = (sums.high.astype(np.int64) << 32) | (sums.low.astype(np.int64) & 0xFFFFFFFF)
    values = np.where(wide, whole, sums.low).astype(np.float64) * QUANTUM
    values[wide & (sums.high == -(1 << 31))] = np.nan
    return values
