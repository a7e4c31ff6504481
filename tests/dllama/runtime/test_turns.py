"""The order in which groups of rows are computed: each in its turn, and a feed-forward between any
two attentions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from dllama.runtime.turns import in_order


def half_layers(n_groups: int, n_visits: int, has_parts: bool) -> list[tuple[int, int]]:
    """Returns the group and the number of the half layer of every visit."""
    done: Counter[int] = Counter()
    found = []
    for group in in_order(n_groups, n_visits, has_parts=has_parts):
        found.append((group, done[group]))
        done[group] += 1
    return found


@pytest.mark.parametrize("n_groups", range(1, 6))
@pytest.mark.parametrize("n_visits", [1, 2, 5, 8])
@pytest.mark.parametrize("has_parts", [True, False])
def test_every_group_is_computed_after_those_it_attends_to(
    n_groups: int, n_visits: int, has_parts: bool
) -> None:
    found = half_layers(n_groups, n_visits, has_parts)
    assert Counter(group for group, _ in found) == dict.fromkeys(range(n_groups), n_visits)
    for number in range(0, n_visits, 2):
        assert [group for group, n in found if n == number] == list(range(n_groups))


def test_a_feed_forward_is_computed_between_any_two_attentions() -> None:
    found = half_layers(3, 17, True)
    kinds = [number % 2 for _, number in found]
    steady = kinds[3:-3]
    assert all(one != other for one, other in pairwise(steady))


def test_no_group_is_computed_twice_in_a_row_but_at_the_ends() -> None:
    """Its sums would have no time to travel."""
    groups = [group for group, _ in half_layers(3, 17, True)]
    assert all(one != other for one, other in pairwise(groups))
