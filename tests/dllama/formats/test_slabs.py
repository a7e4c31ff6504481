"""Slabs cover every row once, in order, and are no larger than asked where a row is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dllama.formats.slabs import slabs


@given(st.integers(0, 500), st.integers(0, 60), st.integers(1, 3000))
def test_every_row_is_in_one_slab(n_rows: int, n_cols: int, most: int) -> None:
    found = list(slabs(n_rows, n_cols, most))
    assert [row for slab in found for row in range(slab.start, slab.stop)] == list(range(n_rows))
    for slab in found:
        n = slab.stop - slab.start
        assert n == 1 or (n > 1 and n * n_cols <= most)


def test_slabs_are_as_large_as_they_may_be() -> None:
    assert [s.stop - s.start for s in slabs(10, 100, 399)] == [3, 3, 3, 1]
