from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from types import SimpleNamespace
from typing import cast

import pytest
import zmq

from cluster.mesh import probe
from cluster.mesh.collective import MeshCollective
from cluster.mesh.links import MeshLinks
from cluster.mesh.probe import PeerLink, probe_links, rounds
from cluster.mesh.sync_type import SyncType
from cluster.planning.links import LinkSpeed
from cluster.sockets import Context, endpoint
from dllama.errors import ProtocolError

WORK_S = 2e-3


@pytest.mark.parametrize("n", range(1, 12))
def test_every_pair_meets_once_and_no_rank_twice_in_a_round(n: int) -> None:
    all_rounds = list(rounds(n))
    pairs = [pair for each in all_rounds for pair in each]
    assert sorted(pairs) == list(combinations(range(n), 2))
    for each in all_rounds:
        ranks = [rank for pair in each for rank in pair]
        assert len(ranks) == len(set(ranks))


def meshes(n: int, context: Context) -> list[MeshCollective]:
    made = [
        MeshCollective(rank, n, 7, sync_type=SyncType.F32, context=context) for rank in range(n)
    ]
    ports = [mesh.bind("127.0.0.1", [0]) for mesh in made]
    peers = [endpoint("127.0.0.1", port) for port in ports]
    together([lambda mesh=mesh: mesh.connect(peers, 30) for mesh in made])  # type: ignore[misc]
    return made


def together(calls: list[Callable[[], object]]) -> list[object]:
    """The results of calls that run at once; raises what one of them raises."""
    results: list[object] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = calls[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


@contextmanager
def meshed(n: int) -> Iterator[list[MeshCollective]]:
    context: Context = zmq.Context()
    made = meshes(n, context)
    try:
        yield made
    finally:
        for mesh in made:
            mesh.close()
        context.destroy()


def probed(n: int) -> list[list[PeerLink]]:
    """Returns what each of n ranks has measured."""
    with meshed(n) as made:
        found = together(
            [lambda mesh=m: probe_links(mesh.links, n, lambda rank: f"to {rank}") for m in made]  # type: ignore[misc]
        )
    assert all(isinstance(links, list) for links in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_links_are_measured_once(
    n: int, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    for rank, links in enumerate(probed(n)):
        assert [link.rank for link in links] == list(range(rank + 1, n))
        for link in links:
            assert isinstance(link, PeerLink) and link.speed.interface == f"to {link.rank}"
            points = link.speed.points
            assert [p.n_bytes for p in points] == list(probe.SIZES)[: len(points)]
            assert all(0 < p.p50_us <= p.p99_us for p in points)
            assert all(p.cpu_us >= 0 for p in points)


def test_what_a_node_computes_slower_beside_an_exchange_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's part of receiving is no thread's time."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    monkeypatch.setattr(probe._Lead, "_time_work", lambda self: 0.5 * WORK_S)
    monkeypatch.setattr(probe._Lead, "_work", lambda self, n: time.sleep(n * WORK_S))
    [link], _ = probed(2)
    longest = link.speed.points[-1]
    assert longest.n_bytes == probe.SIZES[-1]
    assert longest.cpu_us >= 0.5e6 * WORK_S


class FakeLink:
    """A link of a latency and a bandwidth, and the clock by which it is measured."""

    def __init__(self, latency_s: float, mbit_per_s: float) -> None:
        self.latency_s, self.mbit_per_s, self.now = latency_s, mbit_per_s, 0.0
        self.swaps: list[int] = []  # sizes
        self.held_up: dict[int, float] = {}  # seconds by the number of an exchange

    def measured(self, monkeypatch: pytest.MonkeyPatch) -> LinkSpeed:
        clock = SimpleNamespace(
            perf_counter=lambda: self.now, process_time=lambda: 0.0, thread_time=lambda: 0.0
        )
        monkeypatch.setattr(probe, "time", clock)
        monkeypatch.setattr(probe._Lead, "_time_work", lambda lead: 1e-3)
        monkeypatch.setattr(probe._Lead, "swap", lambda lead, *args: self._swap(*args))
        return probe._Lead(cast(MeshLinks, None), 1).measure("fake")

    def _swap(self, size: int, following: int, meanwhile: object = None) -> int:
        wire_s = probe.SIZES[size] * 8e-6 / self.mbit_per_s
        self.now += self.latency_s + wire_s + self.held_up.get(len(self.swaps), 0.0)
        self.swaps.append(size)
        return following


@pytest.mark.parametrize(("latency_s", "mbit_per_s", "n_sizes"), [
    (1e-4, 1000, 5), (1e-4, 100, 5), (1e-4, 5, 3), (1e-4, 1, 3), (0.05, 100, 5), (0.08, 1000, 5),
    (0.05, 5, 3), (1e-4, 0.1, 3),
])  # fmt: skip
def test_every_link_is_measured_as_far_as_its_bandwidth_shows(
    latency_s: float, mbit_per_s: float, n_sizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no further where bytes are slow: in a time that is bounded."""
    link = FakeLink(latency_s, mbit_per_s)
    speed = link.measured(monkeypatch)
    assert [p.n_bytes for p in speed.points] == list(probe.SIZES[:n_sizes])
    assert speed.gbit_per_s == pytest.approx(mbit_per_s / 1e3)
    assert speed.latency_us == pytest.approx(1e6 * latency_s + 2048 * 8 / mbit_per_s)
    assert link.now < (3.0 if mbit_per_s >= 1 else 14.0)


@pytest.mark.parametrize("n_before", range(0, 60, 3))
def test_an_exchange_that_is_held_up_does_not_end_a_measurement(
    n_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = FakeLink(1e-3, 100.0)
    link.held_up[n_before] = 0.3
    speed = link.measured(monkeypatch)
    assert len(speed.points) == len(probe.SIZES)
    assert speed.gbit_per_s == pytest.approx(0.1)


def test_a_size_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    announced = iter([3, probe.LAST])
    monkeypatch.setattr(probe._Exchange, "swap", lambda *args: next(announced))
    with pytest.raises(ProtocolError, match="unknown size 3"):
        probe._follow(cast(MeshLinks, None), 0)
