"""What travels while others are computed costs nothing, as far as there is something to compute."""

from __future__ import annotations

import pytest

from cluster.planning.pipeline import Hops, pipelined_s

LAYER = (10.0, 44.0)  # attention and feed-forward
FREE, SLOW = Hops(0.0, 0.0, 0.0), Hops(50.0, 10.0, 0.0)


@pytest.mark.parametrize("n_groups", [1, 2, 3, 5])
@pytest.mark.parametrize("has_parts", [True, False])
def test_a_free_wire_costs_nothing(n_groups: int, has_parts: bool) -> None:
    for n_layers in (1, 6, 40):
        found = pipelined_s(LAYER, n_layers, n_groups, FREE, has_parts=has_parts)
        assert found == pytest.approx(54 * n_layers)


def test_three_groups_hide_what_travels() -> None:
    """The wire works for 40 of a layer's 54."""
    hops = Hops(16 / 3, 4 / 3, 0.1)
    found = pipelined_s(LAYER, 16, 3, hops, has_parts=True)
    assert 16 * 54 < found < 1.02 * 16 * 54
    assert pipelined_s(LAYER, 16, 2, Hops(8, 2, 0.1), has_parts=True) > 1.1 * found
    assert pipelined_s(LAYER, 16, 3, hops, has_parts=False) > 1.1 * found


def test_a_slow_wire_is_always_at_work() -> None:
    """Two sums and two exchanges of rows a layer, of each of three groups."""
    found = pipelined_s(LAYER, 40, 3, SLOW, has_parts=True)
    assert found == pytest.approx(40 * 2 * 3 * 60, rel=0.05)


def test_one_group_waits_for_both_hops() -> None:
    found = pipelined_s(LAYER, 2, 1, Hops(3.0, 2.0, 1.0), has_parts=True)
    assert found == pytest.approx(2 * (54 + 2 * 7))


def test_many_layers_take_as_long_as_if_all_were_looked_at() -> None:
    hops = Hops(8.0, 3.0, 0.5)
    six, nine, twelve = (pipelined_s(LAYER, n, 3, hops, has_parts=True) for n in (6, 9, 12))
    assert nine - six == pytest.approx(twelve - nine)
