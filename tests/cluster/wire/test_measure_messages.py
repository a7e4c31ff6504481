from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.mesh.probe import SIZES, PeerLink
from cluster.planning.links import LinkPoint, LinkSpeed
from cluster.wire.measure_messages import Measure, Measured, check_measure, check_measured
from dllama.errors import ProtocolError
from dllama.qtypes import QType
from dllama.speeds import KernelSpeeds, TypeSpeed

POINTS = [LinkPoint(size, 10.0, 20.0) for size in SIZES[:3]]
SPEEDS = KernelSpeeds([TypeSpeed(QType.Q4_0, 20.0, 300.0)], 100.0, 8.0, 1.0, 60.0, 3.0)
FOUND = Measured(SPEEDS, [PeerLink(2, LinkSpeed(POINTS, "eth0"))], 50.0)


def test_sound_figures() -> None:
    check_measured(FOUND, 1, 3, [QType.Q4_0])
    check_measured(replace(FOUND, links=[]), 2, 3, [QType.Q4_0])
    check_measure(Measure([QType.Q4_0], 1))


WRONG = {
    "another type": replace(SPEEDS, types=[TypeSpeed(QType.F16, 20.0, 300.0)]),
    "no type": replace(SPEEDS, types=[]),
    "twice": replace(SPEEDS, types=SPEEDS.types * 2),
    "weights that take less than no time": replace(
        SPEEDS, types=[TypeSpeed(QType.Q4_0, 20.0, 300.0, -0.1)]
    ),
    "half layers without an end": replace(SPEEDS, long_half_layer_us=float("inf")),
    "no speed": replace(SPEEDS, types=[TypeSpeed(QType.Q4_0, 0.0, 300.0)]),
    "endless": replace(SPEEDS, half_layer_us=float("inf")),
    "not a number": replace(SPEEDS, sum_gb_per_s=float("nan")),
    "negative": replace(SPEEDS, attention_gop_per_s=-1.0),
}


@pytest.mark.parametrize("speeds", WRONG.values(), ids=WRONG)
def test_speeds_that_cannot_be(speeds: KernelSpeeds) -> None:
    with pytest.raises(ProtocolError, match="rank 1 measured what cannot be"):
        check_measured(replace(FOUND, speeds=speeds), 1, 3, [QType.Q4_0])


@pytest.mark.parametrize("row_sum_us", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sum_that_takes_no_time_cannot_be(row_sum_us: float) -> None:
    with pytest.raises(ProtocolError, match="rank 1 measured what cannot be"):
        check_measured(replace(FOUND, row_sum_us=row_sum_us), 1, 3, [QType.Q4_0])


def test_a_rank_alone_makes_no_sums() -> None:
    check_measured(Measured(SPEEDS, []), 0, 1, [QType.Q4_0])


LINKS = {
    "none": [],
    "of another rank": [PeerLink(1, LinkSpeed(POINTS))],
    "twice": FOUND.links * 2,
    "without points": [PeerLink(2, LinkSpeed([]))],
    "of other sizes": [PeerLink(2, LinkSpeed(POINTS[1:]))],
    "in no time": [PeerLink(2, LinkSpeed([LinkPoint(SIZES[0], 0.0, 1.0)]))],
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_links_that_cannot_be(links: list[PeerLink]) -> None:
    with pytest.raises(ProtocolError, match="rank 1 measured what cannot be"):
        check_measured(replace(FOUND, links=links), 1, 3, [QType.Q4_0])


@pytest.mark.parametrize("types", [[], [QType.I8], [QType.Q4_0, QType.Q8_K]])
def test_types_without_kernels_are_not_measured(types: list[QType]) -> None:
    with pytest.raises(ProtocolError, match="types without kernels"):
        check_measure(Measure(types, 1))
