"""Order without sorting everything, against the full sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.sampling.pool import draw, largest, pool_of


@given(
    logits=st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), min_size=1, max_size=80),
    k=st.integers(1, 90),
    repeats=st.sampled_from([1, 40]),
)
def test_largest_is_a_prefix_of_the_full_sort(logits: list[float], k: int, repeats: int) -> None:
    values = np.array(logits * repeats, np.float32)
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    assert largest(values, k).tolist() == order[:k]


@pytest.mark.parametrize("n", [3, 50, 5000])
def test_a_pool_is_drawn_from_in_order_however_it_lies(n: int) -> None:
    logits = np.random.default_rng(n).normal(size=n).astype(np.float32) * 3
    logits[n // 2] = -np.inf
    loose = pool_of(None, logits, is_sorted=False)
    order = largest(logits, n)
    tidy = pool_of(order, logits[order], is_sorted=True)
    assert loose is not None and tidy is not None and len(loose) == len(tidy) == n - 1
    for u in np.linspace(0, 1, 200, endpoint=False):
        assert loose.token(draw(loose, u)) == tidy.token(draw(tidy, u))
    assert loose.best(2).token_ids().tolist() == order[:2].tolist()
    assert loose.only(np.array([1])).x.tolist() == [0.0], "the best is always 0"


def test_nothing_possible_is_no_pool() -> None:
    assert pool_of(None, np.full(4, -np.inf, np.float32), is_sorted=False) is None
