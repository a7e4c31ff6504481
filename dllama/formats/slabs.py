"""Rows are converted a slab at a time: the arrays in between stay small."""

from __future__ import annotations

from collections.abc import Iterator

ENCODED = 1 << 18  # values at a time where blocks are made: some steps of them fit a core's cache
DECODED = 1 << 20  # where values are unpacked: few calls, and little beside a whole tensor


def slabs(n_rows: int, n_cols: int, most_values: int) -> Iterator[slice]:
    """Yields the rows of each slab in their order: of `most_values` at most, but one row at least.
    They reach to the last row and no further."""
    step = max(1, most_values // max(1, n_cols))
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))
