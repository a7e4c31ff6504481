from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.planning.links import LinkPoint, LinkSpeed
from cluster.planning.measurements import MeasuredLink, Measurements
from cluster.planning.store import MAX_AGE_S, MAX_NODES, MeasurementStore
from dllama.qtypes import QType
from dllama.speeds import KernelSpeeds
from tests.cluster.planning.clusters import GIGABIT, speeds

FOUND = Measurements([speeds(20), speeds(10)], [MeasuredLink(0, 1, GIGABIT)])
KEYS = ["root", "worker"]
TYPES = [QType.Q4_0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "measured.json"


def test_what_is_kept_is_found_by_another_store(file: Path) -> None:
    assert MeasurementStore(file).find(KEYS, TYPES, 0.0) is None
    MeasurementStore(file).keep(KEYS, FOUND, 100.0)
    assert MeasurementStore(file).find(KEYS, TYPES, 101.0) == FOUND


def test_nodes_are_found_one_by_one_and_in_any_order(file: Path) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    alone = store.find(["worker"], TYPES, 100.0)
    assert alone is not None and alone.speeds == [FOUND.speeds[1]]
    turned = store.find(["worker", "root"], TYPES, 100.0)
    assert turned == Measurements(FOUND.speeds[::-1], FOUND.links)
    assert store.find(["root", "other"], TYPES, 100.0) is None
    assert store.find(KEYS, [QType.Q4_0, QType.F16], 100.0) is None


def test_later_figures_take_the_place_of_earlier_ones(file: Path) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    link = LinkSpeed.rated(500, 0.1)
    later = replace(FOUND, links=[MeasuredLink(0, 1, link)])
    store.keep(KEYS, later, 200.0)
    assert store.find(KEYS, TYPES, 200.0) == later


def test_old_figures_are_forgotten(file: Path) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    assert store.find(KEYS, TYPES, 100.0 + MAX_AGE_S) == FOUND
    assert store.find(KEYS, TYPES, 101.0 + MAX_AGE_S) is None
    assert store.find(KEYS, TYPES, 99.0) is None  # from the future: the clock was set back


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"kernels": 3, "links": []}', b"[" * 100_000, b"\xff" * 10]
)
def test_a_damaged_file_counts_as_none(file: Path, damage: bytes) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    file.write_bytes(damage)
    assert store.find(KEYS, TYPES, 100.0) is None
    store.keep(KEYS, FOUND, 100.0)
    assert store.find(KEYS, TYPES, 100.0) == FOUND


def test_types_are_measured_one_after_the_other_and_all_are_kept(file: Path) -> None:
    """Each for its own week: two models of other types measure once each."""
    store = MeasurementStore(file)
    store.keep(["root"], Measurements([speeds(20)], []), 100.0)
    store.keep(["root"], Measurements([speeds(30, qtype=QType.F16)], []), 200.0)
    both = [QType.F16, QType.Q4_0]
    found = store.find(["root"], both, 300.0)
    assert found is not None
    assert [(t.qtype, t.read_gb_per_s) for t in found.speeds[0].types] == [
        (QType.F16, 30), (QType.Q4_0, 20)
    ]  # fmt: skip
    assert store.find(["root"], [QType.F16], 150.0 + MAX_AGE_S) is not None
    assert store.find(["root"], both, 150.0 + MAX_AGE_S) is None
    store.keep(["root"], Measurements([speeds(40)], []), 300.0)
    found = store.find(["root"], both, 300.0)
    assert found is not None and [t.read_gb_per_s for t in found.speeds[0].types] == [30, 40]


def test_a_link_measured_from_the_other_side_takes_the_place_of_the_earlier_one(file: Path) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    later = MeasuredLink(0, 1, LinkSpeed.rated(500, 0.1))
    store.keep(KEYS[::-1], replace(FOUND, links=[later]), 200.0)
    found = store.find(KEYS, TYPES, 200.0)
    assert found is not None and found.links == [later]


IMPOSSIBLE_LINKS = {
    "no points": LinkSpeed([]),
    "one size": LinkSpeed([LinkPoint(2048, 50.0, 60.0)]),
    "no time": LinkSpeed([LinkPoint(2048, 0.0, 0.0), *GIGABIT.points[1:]]),
    "sizes that shrink": LinkSpeed(GIGABIT.points[::-1]),
    "one size twice": LinkSpeed(GIGABIT.points[1:] * 2),
    "less than no time of a processor": LinkSpeed([LinkPoint(1 << 20, 9.0, 9.0, -1.0)]),
}


@pytest.mark.parametrize("link", IMPOSSIBLE_LINKS.values(), ids=IMPOSSIBLE_LINKS)
def test_links_that_cannot_be_count_as_none(file: Path, link: LinkSpeed) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, replace(FOUND, links=[MeasuredLink(0, 1, link)]), 100.0)
    assert store.find(KEYS, TYPES, 100.0) is None
    assert store.find(["root"], TYPES, 100.0) is not None


@pytest.mark.parametrize("keys", [[], ["root"], ["root", "root"]])
def test_a_link_without_two_ends_counts_as_none(file: Path, keys: list[str]) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    data = json.loads(file.read_bytes())
    data["links"][0]["keys"] = keys
    file.write_text(json.dumps(data))
    assert store.find(KEYS, TYPES, 100.0) is None


IMPOSSIBLE_SPEEDS = {
    "no types": replace(speeds(), types=[]),
    "a type twice": replace(speeds(), types=speeds().types * 2),
    "no speed": speeds(0.0),
    "less than none": speeds(20.0, -1.0),
    "no time": replace(speeds(), half_layer_us=0.0),
    "no end": replace(speeds(), step_us=float("inf")),
    "no number": replace(speeds(), sum_gb_per_s=float("nan")),
}


@pytest.mark.parametrize("kernels", IMPOSSIBLE_SPEEDS.values(), ids=IMPOSSIBLE_SPEEDS)
def test_speeds_that_cannot_be_count_as_none(file: Path, kernels: KernelSpeeds) -> None:
    store = MeasurementStore(file)
    store.keep(["root"], Measurements([kernels], []), 100.0)
    assert store.find(["root"], [], 100.0) is None


def test_the_file_is_bounded(file: Path) -> None:
    store = MeasurementStore(file)
    one = Measurements([speeds()], [])
    for i in range(0, MAX_NODES + 20, 20):
        keys = [f"node {j}" for j in range(i, i + 20)]
        store.keep(keys, Measurements([speeds()] * 20, []), 100.0)
    assert store.find(["node 0"], TYPES, 100.0) is None
    assert store.find([f"node {MAX_NODES}"], TYPES, 100.0) == one


def test_a_disk_that_takes_nothing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = MeasurementStore(tmp_path / "file" / "measured.json")
    with caplog.at_level(logging.WARNING):
        store.keep(KEYS, FOUND, 100.0)
    assert "could not be kept" in caplog.text
    assert store.find(KEYS, TYPES, 100.0) is None


def test_without_a_home_nothing_is_kept() -> None:
    store = MeasurementStore(None)
    store.keep(KEYS, FOUND, 100.0)
    assert store.find(KEYS, TYPES, 100.0) is None
