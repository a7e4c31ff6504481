from __future__ import annotations

import pytest

from cluster.planning.links import LinkPoint, LinkSpeed
from cluster.planning.measurements import MeasuredLink, Measurements, NodeFacts
from tests.cluster.planning.clusters import speeds

SIZES = (2048, 8192, 65536, 262144)


def link(us: float) -> LinkSpeed:
    return LinkSpeed([LinkPoint(n, us + n / 100, 2 * us) for n in SIZES], "eth0")


def measured(*us: float) -> Measurements:
    """Three nodes, and their links 0-1, 0-2 and 1-2."""
    pairs = [(0, 1), (0, 2), (1, 2)]
    links = [MeasuredLink(*pair, link(each)) for pair, each in zip(pairs, us, strict=True)]
    return Measurements([speeds(30), speeds(20), speeds(10)], links)


def test_some_nodes_have_their_own_figures() -> None:
    found = measured(10, 20, 30).of([0, 2])
    assert [s.types[0].read_gb_per_s for s in found.speeds] == [30, 10]
    assert found.links == [MeasuredLink(0, 1, link(20))]
    assert measured(10, 20, 30).of([0]).links == []
    assert found.network().between(0, 1) == link(20)


def test_nodes_are_called_what_they_are() -> None:
    facts = [NodeFacts("root", "m", 1), NodeFacts("a", "m", 2), NodeFacts("b", "n", 3)]
    found = measured(10, 20, 30)
    assert [(n.label, n.machine, n.free_bytes) for n in found.nodes(facts)] == [
        ("root", "m", 1), ("a", "m", 2), ("b", "n", 3)
    ]  # fmt: skip
    assert [each.between for each in found.named_links(facts)] == [
        ("root", "a"), ("root", "b"), ("a", "b")
    ]  # fmt: skip


@pytest.mark.parametrize("part", [0.5, 1.2])
def test_short_exchanges_are_as_fast_as_the_sums_that_were_measured(part: float) -> None:
    found = measured(10, 20, 30)
    seconds = part * found.network().exchange_s(range(3), 8192)
    scaled = found.with_row_sum(8192, seconds)
    assert scaled.network().exchange_s(range(3), 8192) == pytest.approx(seconds)
    for before, after in zip(found.links, scaled.links, strict=True):
        assert after.speed.points[2:] == before.speed.points[2:]  # large ones are sent by Python
        assert after.speed.points[0].p50_us == pytest.approx(part * before.speed.points[0].p50_us)


def test_a_sum_that_was_disturbed_counts_little() -> None:
    found = measured(10, 20, 30)
    expected = found.network().exchange_s(range(3), 8192)
    slow = found.with_row_sum(8192, 100 * expected)
    assert slow.network().exchange_s(range(3), 8192) == pytest.approx(1.5 * expected)
    fast = found.with_row_sum(8192, 1e-9)
    assert fast.network().exchange_s(range(3), 8192) == pytest.approx(0.2 * expected)


def test_one_node_sums_nothing() -> None:
    alone = Measurements([speeds()], [])
    assert alone.with_row_sum(8192, 0.0) is alone
