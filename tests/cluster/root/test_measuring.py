"""Real daemons and sessions are measured; figures are only checked for what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.random_model import SHAPES
from cluster.measuring import SHARED_MEMORY
from cluster.planning.store import MeasurementStore
from cluster.planning.work import ModelWork, Room, described_tensors
from cluster.root import measuring
from cluster.root.measuring import MeasuredNodes, measured_nodes, types_by_bytes
from cluster.root.session_plan import ClusterConfig
from cluster.wire.features import MEASURES, own_features
from cluster.wire.measure_messages import Measure, Measured
from dllama import __version__
from dllama.errors import ClusterError
from dllama.qtypes import QType
from tests.cluster.worker_process import WorkerProcess

TYPES = [QType.Q8_0, QType.F32]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_BYTES", 16 << 20)


def measure(
    workers: list[WorkerProcess], store: MeasurementStore, *, anew: bool = False
) -> MeasuredNodes:
    config = ClusterConfig(
        [w.address for w in workers], n_pages=1, max_step_tokens=1, threads=1,
        hello_timeout_s=30.0,
    )  # fmt: skip
    return measured_nodes(config, "root", __version__, TYPES, store, anew=anew)


def test_nodes_and_links_are_measured_once_and_kept(
    no_leaks: None, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    workers = [start_worker(), start_worker()]
    store = MeasurementStore(tmp_path / "measured.json")
    first = measure(workers, store)
    assert [fact.label for fact in first.facts] == [
        "this machine", *(str(w.address) for w in workers)
    ]  # fmt: skip
    for speeds in first.measurements.speeds:
        assert [each.qtype for each in speeds.types] == sorted(TYPES)
        assert all(each.read_gb_per_s > 0 for each in speeds.types)
    pairs = [(link.low, link.high) for link in first.measurements.links]
    assert pairs == [(0, 1), (0, 2), (1, 2)]
    assert {link.speed.interface for link in first.measurements.links} <= {SHARED_MEMORY, "lo"}
    for worker in workers:
        worker.await_no_session()
    again = measure(workers, store)
    assert again.measurements == first.measurements
    assert all(worker.output.count("opened a session") == 1 for worker in workers)
    anew = measure(workers[:1], store, anew=True)
    assert len(anew.measurements.speeds) == 2
    assert workers[0].output.count("opened a session") == 2


def test_a_node_alone_is_measured_too(tmp_path: Path) -> None:
    found = measure([], MeasurementStore(None))
    assert len(found.measurements.speeds) == 1 and not found.measurements.links


def test_a_worker_that_cannot_measure_is_named(
    start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    features = [each for each in own_features() if each != MEASURES]
    worker = start_worker(features=features)
    with pytest.raises(ClusterError, match="cannot measure itself; install the same dllama"):
        measure([worker], MeasurementStore(None))


def test_other_types_are_measured_when_they_are_needed(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "measured.json")
    config = ClusterConfig([], n_pages=1, max_step_tokens=1, threads=1)
    for types in ([QType.F32], [QType.Q8_0], [QType.Q8_0, QType.F32]):
        found = measured_nodes(config, "root", __version__, types, store, anew=False)
        assert [each.qtype for each in found.measurements.speeds[0].types] == sorted(types)
    other = replace(config, threads=2)  # other threads are another node
    assert store.find(["nobody"], TYPES, 0.0) is None
    found = measured_nodes(other, "root", __version__, [QType.F32], store, anew=False)
    assert len(found.measurements.speeds[0].types) == 1


def test_steps_are_measured_with_the_type_of_most_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture has routers in F32, whose number is lower."""
    config = SHAPES["qwen3-30b-a3b"]
    work = ModelWork(config, described_tensors(config, QType.Q4_K), Room(1, 1))
    types = types_by_bytes(work)
    assert types == [QType.Q4_K, QType.F32]
    asked = []

    def measure(a: Measure, *others: object) -> Measured:
        asked.append(a.types)
        raise ClusterError("it is measured elsewhere")

    monkeypatch.setattr(measuring, "measure_rank", measure)
    cluster = ClusterConfig([], n_pages=1, max_step_tokens=1, threads=1)
    with pytest.raises(ClusterError):
        measured_nodes(cluster, "root", __version__, types, MeasurementStore(None), anew=True)
    assert asked == [types]
