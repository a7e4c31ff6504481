"""The two orders rows of query and key projections are stored in: half-split, where a rotary pair
is (j, j + head_dim / 2), which is ours; and interleaved, where it is (2j, 2j + 1)."""

from __future__ import annotations

import numpy as np


def half_split_order(wanted: range, head_dim: int) -> np.ndarray:
    """Where our rows `wanted` lie among interleaved ones: per head, our row j is theirs 2j and
    our row j + head_dim / 2 is theirs 2j + 1. Returns int64 (len(wanted),)."""
    head, j = np.divmod(np.arange(wanted.start, wanted.stop), head_dim)
    half = head_dim // 2
    order: np.ndarray = head * head_dim + 2 * (j % half) + j // half
    return order


def interleaved_order(n_rows: int, head_dim: int) -> np.ndarray:
    """Which of our rows comes next in an interleaved file: the inverse of half_split_order."""
    return np.argsort(half_split_order(range(n_rows), head_dim))
