from __future__ import annotations

import pytest

from cluster.planning.links import LinkPoint, LinkSpeed, Network


def test_a_rated_link_has_its_figures() -> None:
    link = LinkSpeed.rated(100, 1.0)
    assert link.latency_us == 100
    assert link.gbit_per_s == pytest.approx(1.0)
    assert link.seconds(0) == pytest.approx(100e-6)
    assert link.seconds(125_000) == pytest.approx(1.1e-3)  # a millisecond of wire
    assert link.seconds(10 << 20) == pytest.approx(100e-6 + (10 << 20) * 8e-9)


def test_times_lie_between_those_measured() -> None:
    link = LinkSpeed([LinkPoint(1000, 50, 90), LinkPoint(3000, 70, 99), LinkPoint(5000, 150, 200)])
    assert link.seconds(10) == pytest.approx(50e-6)
    assert link.seconds(2000) == pytest.approx(60e-6)
    assert link.seconds(4000) == pytest.approx(110e-6)
    assert link.seconds(7000) == pytest.approx(230e-6)
    assert link.latency_p99_us == 90


@pytest.mark.parametrize(
    "points", [[LinkPoint(2048, 40, 90)], [LinkPoint(1024, 50, 90), LinkPoint(2048, 40, 90)]]
)
def test_a_link_without_a_bandwidth_is_not_taken_for_an_endless_one(
    points: list[LinkPoint],
) -> None:
    """It was measured at one size, or noise hid what bytes cost."""
    link = LinkSpeed(points)
    assert link.gbit_per_s is None
    assert link.seconds(2048) == pytest.approx(40e-6)
    assert link.seconds(1 << 20) == pytest.approx(512 * 40e-6)


def test_scaled_exchanges_leave_the_bandwidth_alone() -> None:
    sizes = (2 << 10, 8 << 10, 64 << 10, 256 << 10)
    link = LinkSpeed([LinkPoint(n, 1000 + n * 0.08, 2000) for n in sizes])
    for n in (2, 3, 4):
        some = LinkSpeed(link.points[:n])
        assert some.gbit_per_s == pytest.approx(0.1)
        assert some.scaled(8 << 10, 0.4).gbit_per_s == pytest.approx(0.1)
    assert link.scaled(8 << 10, 0.4).latency_us == pytest.approx(0.4 * link.latency_us)


def test_all_that_a_node_sends_goes_through_its_own_interface() -> None:
    link = LinkSpeed.rated(0.0, 1.0)
    network = Network({}, link)
    two, four = (network.exchange_s(range(n), 125_000) for n in (2, 4))
    assert two == pytest.approx(1e-3)
    assert four == pytest.approx(3e-3)


def test_the_slowest_link_decides() -> None:
    fast, slow = LinkSpeed.rated(50, 1.0), LinkSpeed.rated(500, 0.1)
    network = Network({(0, 1): fast, (0, 2): slow, (2, 1): slow})
    assert network.exchange_s([0, 1], 2048) == fast.seconds(2048)
    assert network.exchange_s([0, 1, 2], 2048) > 2 * slow.wire_seconds(2048)
    assert network.between(1, 2) is slow
    assert network.between(7, 8) is slow  # never measured: no better than the worst
    assert network.slowest_latency_s([0, 1]) == pytest.approx(50e-6)
    assert network.slowest_latency_s([0]) == 0.0


def test_one_node_exchanges_nothing() -> None:
    assert Network({}, LinkSpeed.rated(50, 1.0)).exchange_s([0], 1 << 20) == 0.0
