"""The two orders in which rows of query and key projections are stored: half-split, where a rotary
pair is (j, j + rotary_dim / 2), which is ours; and interleaved, where it is (2j, 2j + 1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RotaryPairs(NamedTuple):
    """Heads of head_dim values, of which the first rotary_dim are rotated."""

    head_dim: int
    rotary_dim: int


def half_split_order(wanted: range, pairs: RotaryPairs) -> np.ndarray:
    """Returns the places of our rows `wanted` among interleaved ones: per head, our row j is theirs
    2j and our row j + rotary_dim / 2 is theirs 2j + 1; rows that are not rotated stay. int64
    (len(wanted),)."""
    head, j = np.divmod(np.arange(wanted.start, wanted.stop), pairs.head_dim)
    half = pairs.rotary_dim // 2
    theirs = np.where(j < pairs.rotary_dim, 2 * (j % half) + j // half, j)
    order: np.ndarray = head * pairs.head_dim + theirs
    return order


def interleaved_order(n_rows: int, pairs: RotaryPairs) -> np.ndarray:
    """Returns our row for each row of an interleaved file: the inverse of half_split_order."""
    return np.argsort(half_split_order(range(n_rows), pairs))
