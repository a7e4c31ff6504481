from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.planning.links import LinkSpeed
from cluster.planning.measurements import MeasuredLink, Measurements
from cluster.planning.store import MAX_AGE_S, MAX_NODES, MeasurementStore
from dllama.qtypes import QType
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


def test_nodes_are_found_one_by_one_and_in_another_order_not(file: Path) -> None:
    store = MeasurementStore(file)
    store.keep(KEYS, FOUND, 100.0)
    alone = store.find(["worker"], TYPES, 100.0)
    assert alone is not None and alone.speeds == [FOUND.speeds[1]]
    assert store.find(["worker", "root"], TYPES, 100.0) is None  # measured from the other side
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
