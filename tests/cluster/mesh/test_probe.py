from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import pytest
import zmq

from cluster.mesh import probe
from cluster.mesh.collective import MeshCollective
from cluster.mesh.probe import PeerLink, probe_links, rounds
from cluster.mesh.sync_type import SyncType
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


def test_a_link_that_is_slow_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SLOW_S", 0.0)
    [link], _ = probed(2)
    assert len(link.speed.points) == 1


def test_a_size_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with meshed(2) as made:
        for mesh in made:
            mesh.links.sequence = 1
        exchange = probe._Exchange(made[0].links, 1)
        with pytest.raises(ProtocolError, match="unknown size 3"):
            together([lambda: exchange.swap(0, 3), lambda: probe._follow(made[1].links, 0)])
