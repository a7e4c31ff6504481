"""Real workers on loopback: the first start sends the weights, the second none."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster import feed
from cluster.feed import FeedProgress
from cluster.root.runner import ClusterRunner
from dllama.errors import PeerLost
from tests.cluster.array_source import small_config
from tests.cluster.steps import logits, recover
from tests.cluster.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]

TOKENS = [5, 6, 7]
LARGE = small_config(dim=512, hidden_dim=2048, n_layers=4)  # 4 MB a layer and matrix


def weights(runner: ClusterRunner) -> list[tuple[int, int]]:
    """The bytes that each worker found and received, as /stats tells them: zeros where one is too
    busy to answer at once."""
    for _ in range(20):
        rows = runner.stats()[1:]
        if all(any(row["weights"].values()) for row in rows):  # type: ignore[attr-defined]
            break
    return [(row["weights"]["found_bytes"], row["weights"]["received_bytes"]) for row in rows]  # type: ignore[index]


def cached(start_worker: StartWorker, folder: Path) -> WorkerProcess:
    return start_worker(cache_dir=str(folder), cache_bytes=1 << 30)


def test_a_second_start_sends_nothing(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [cached(start_worker, tmp_path / "a"), cached(start_worker, tmp_path / "b")]
    answers = []
    for is_first in (True, False):
        seen: list[FeedProgress] = []
        runner = make_runner(workers, on_progress=seen.append)
        runner.start()
        answers.append(logits(runner, TOKENS))
        told = weights(runner)
        for rank, (found, received) in enumerate(told, start=1):
            last = [p for p in seen if p.rank == rank][-1]
            fetched = last.found_bytes - found  # what both hold, if the other one was sooner
            assert (found > 0) == (not is_first) and fetched >= 0
            assert last.sent_bytes == received
            assert last.total_bytes == found + fetched + received
        assert (sum(received for _, received in told) > 0) == is_first
        runner.close()
        for worker in workers:
            worker.await_no_session()
    assert np.array_equal(*answers)


def test_damaged_pieces_are_counted_on_both_sides(
    start_worker: StartWorker,
    make_runner: MakeRunner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = cached(start_worker, tmp_path)
    for n_damaged in (0, 3):
        files = sorted(file for file in tmp_path.iterdir() if file.is_file())
        for file in files[:n_damaged]:
            file.write_bytes(b"damaged")
        caplog.clear()
        seen: list[FeedProgress] = []
        runner = make_runner([worker], on_progress=seen.append)
        runner.start()
        assert seen[-1].n_again == n_damaged
        runner.close()
        worker.await_no_session()
        told = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
        assert [line.startswith(f"{n_damaged} pieces of weights") for line in told] == (
            [True] if n_damaged else []
        )
    assert "3 pieces of weights on this disk were damaged" in worker.output


def test_two_daemons_share_a_folder(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    """Each finds what the other has kept: the second start has them in the other order."""
    workers = [cached(start_worker, tmp_path), cached(start_worker, tmp_path)]
    before = None
    for order in (workers, workers[::-1]):
        runner = make_runner(order)
        runner.start()
        answer = logits(runner, TOKENS)
        assert before is None or np.array_equal(answer, before)
        before, last = answer, weights(runner)
        runner.close()
        for worker in workers:
            worker.await_no_session()
    assert all(received == 0 for _, received in last)


def test_a_worker_without_a_cache_is_sent_everything_again(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [start_worker(), cached(start_worker, Path("/proc/weights"))]
    for _ in range(2):
        runner = make_runner(workers)
        runner.start()
        assert all(found == 0 and received > 0 for found, received in weights(runner))
        runner.close()
        for worker in workers:
            worker.await_no_session()
    assert workers[1].output.count("weights are not kept") == 3, "at first, and once a session"


def run_until_killed(runner: ClusterRunner) -> None:
    with pytest.raises(PeerLost):
        runner.start()


def test_a_transfer_that_was_interrupted_goes_on(
    start_worker: StartWorker,
    make_runner: MakeRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "REPORT_S", 0.0)
    worker = cached(start_worker, tmp_path)

    def kill(progress: FeedProgress) -> None:
        if progress.sent_bytes:
            for session in worker.sessions():  # none once it was killed
                session.send_signal(signal.SIGKILL)

    model = replace(LARGE, n_layers=8)  # more than what is under way at once
    run_until_killed(make_runner([worker], model=model, on_progress=kill))
    worker.await_no_session()
    kept = sum(file.stat().st_size for file in tmp_path.iterdir() if len(file.name) == 64)
    runner = make_runner([worker], model=model)
    runner.start()
    [(found, received)] = weights(runner)
    assert 0 < kept <= found and received > 0


def test_a_lost_worker_that_comes_back_is_sent_nothing(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [cached(start_worker, tmp_path / "a"), cached(start_worker, tmp_path / "b")]
    runner = make_runner(workers)
    runner.start()
    before = logits(runner, TOKENS)
    workers[0].kill_session(signal.SIGKILL)
    with pytest.raises(PeerLost):
        while True:
            runner.idle()
            time.sleep(0.01)
    recover(runner)
    assert np.array_equal(logits(runner, TOKENS), before)
    assert all(received == 0 and found > 0 for found, received in weights(runner))


def fill(runner: ClusterRunner, n_steps: int = 0) -> None:
    """Idles until the background fill is done, with steps in between."""
    session = runner._session
    assert session is not None
    deadline = time.monotonic() + 60
    while not session.weights.is_filled:
        assert time.monotonic() < deadline
        runner.idle()
        if n_steps:
            n_steps -= 1
            logits(runner, TOKENS)
        time.sleep(0.005)


def test_after_a_loss_the_others_have_what_they_need(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [cached(start_worker, tmp_path / str(n)) for n in range(3)]
    runner = make_runner(workers, model=LARGE)
    runner.start()
    before = logits(runner, TOKENS)
    fill(runner, n_steps=20)
    assert np.array_equal(logits(runner, TOKENS), before), "steps go on beside it"
    spares = [row["weights"]["spare_bytes"] for row in runner.stats()[1:]]  # type: ignore[index]
    assert all(n_bytes > 0 for n_bytes in spares)
    assert all(row["weights"]["has_spares"] for row in runner.stats()[1:])  # type: ignore[index]
    runner.close()
    for worker in workers:
        worker.await_no_session()
    for lost in range(3):
        rest = [worker for n, worker in enumerate(workers) if n != lost]
        fewer = make_runner(rest, model=LARGE)
        fewer.start()
        assert all(received == 0 and found > 0 for found, received in weights(fewer))
        fewer.close()
        for worker in rest:
            worker.await_no_session()


def test_a_fill_that_is_cut_off_goes_on_in_the_next_session(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [cached(start_worker, tmp_path / str(n)) for n in range(2)]
    runner = make_runner(workers, model=LARGE)
    runner.start()
    for _ in range(30):
        runner.idle()
        time.sleep(0.005)
    workers[1].kill_session(signal.SIGKILL)
    with pytest.raises(PeerLost):
        while True:
            runner.idle()
            time.sleep(0.005)
    recover(runner)
    fill(runner)
    assert all(received == 0 for _, received in weights(runner))


def test_a_worker_without_a_cache_is_sent_no_spares(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    runner = make_runner([start_worker(), start_worker()])
    runner.start()
    fill(runner)
    assert [row["weights"]["spare_bytes"] for row in runner.stats()[1:]] == [0, 0]  # type: ignore[index]


def test_workers_that_change_places_fetch_from_each_other(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    workers = [cached(start_worker, tmp_path / "a"), cached(start_worker, tmp_path / "b")]
    answers = []
    for order in (workers, workers[::-1]):
        runner = make_runner(order, model=LARGE)
        runner.start()
        answers.append(logits(runner, TOKENS))
        rows = [row["weights"] for row in runner.stats()[1:]]
        runner.close()
        for worker in workers:
            worker.await_no_session()
    assert np.array_equal(*answers)
    assert all(row["received_bytes"] == 0 and row["fetched_bytes"] > 0 for row in rows)  # type: ignore[index]
