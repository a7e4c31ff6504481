"""Nodes come and go: real daemons on loopback are lost for good, return, drain and start again, and
the cluster computes on with those that are there, to the same bits."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.worker.launcher import SESSION_COMMAND
from dllama.errors import ClusterError, PeerLost
from dllama.formats import open_model
from dllama.qtypes import QType
from dllama.runtime.rank import RankModel
from tests.cluster.steps import idle_until_lost, logits, recover
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_worker_port
from tests.toy_models import write_toy

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(500)]

TOKENS = [5, 6, 7]
PATIENCE_S = 60.0  # this machine may be busy
NEVER_S = 600.0


def n_ranks(runner: ClusterRunner) -> int:
    return len(runner.stats())


def await_change(runner: ClusterRunner, tokens: list[int] | None = None) -> str:
    """Computes, or idles, until the runner would like to come up anew; says why."""
    deadline = time.monotonic() + PATIENCE_S
    while (change := runner.pending_change) is None:
        assert time.monotonic() < deadline, "nothing has changed"
        if tokens is None:
            runner.idle()
        else:
            logits(runner, tokens)
        time.sleep(0.02)
    return change


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """The numpy model adds floats in rank order."""
    return bool(np.abs(a - b).max() < 1e-5)


@pytest.mark.parametrize("victim", ["session", "daemon"])
def test_what_is_lost_for_good_is_planned_without_and_taken_back(
    start_worker: StartWorker, make_runner: MakeRunner, victim: str
) -> None:
    lost, kept = start_worker(port=own_worker_port()), start_worker()
    rejoin_s = 5.0 if victim == "session" else 0.5  # its daemon answers in this time
    runner = make_runner([lost, kept], shares=[2, 1, 1], rejoin_s=rejoin_s)
    runner.start()
    before = logits(runner, TOKENS)
    if victim == "session":
        lost.kill_session(signal.SIGKILL)
        idle_until_lost(runner)
        recover(runner)
        assert n_ranks(runner) == 3, "its daemon answers at once"
        assert (logits(runner, TOKENS) == before).all()
    lost.end(signal.SIGKILL)
    idle_until_lost(runner)
    recover(runner)
    assert [row["host"] for row in runner.stats()[1:]] == [str(kept.address)]
    assert near(logits(runner, TOKENS), before)
    start_worker(port=lost.address.port)
    assert f"worker {lost.address} is there" in await_change(runner, TOKENS)
    runner.recover()
    assert n_ranks(runner) == 3 and runner.pending_change is None
    assert (logits(runner, TOKENS) == before).all()


def test_two_are_lost_at_once_and_the_root_computes_alone(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    workers = [start_worker(port=own_worker_port()), start_worker()]
    runner = make_runner(workers, rejoin_s=0.5)
    runner.start()
    before = logits(runner, TOKENS)
    for worker in workers:
        worker.end(signal.SIGKILL)
    idle_until_lost(runner)
    recover(runner)
    assert n_ranks(runner) == 1
    assert near(logits(runner, TOKENS), before)
    runner.idle()
    start_worker(port=workers[0].address.port)
    await_change(runner)
    runner.recover()
    assert n_ranks(runner) == 2
    assert near(logits(runner, TOKENS), before)


def test_a_loss_is_waited_for_before_it_is_planned_without(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker(port=own_worker_port())
    runner = make_runner([worker], rejoin_s=PATIENCE_S)
    runner.start()
    before = logits(runner, TOKENS)
    worker.end(signal.SIGKILL)
    idle_until_lost(runner)
    with pytest.raises(PeerLost, match=f"worker {worker.address} is waited for"):
        runner.recover()
    start_worker(port=worker.address.port)
    recover(runner)
    assert n_ranks(runner) == 2
    assert (logits(runner, TOKENS) == before).all()


def lose(runner: ClusterRunner, lost: WorkerProcess, kept: WorkerProcess) -> None:
    """Kills a daemon, and recovers once: a session without it is prepared then."""
    lost.end(signal.SIGKILL)
    idle_until_lost(runner)
    with pytest.raises(PeerLost, match=f"worker {lost.address} is waited for"):
        runner.recover()
    assert "opened a session: rank 1 of 2" in kept.output


def n_opened(worker: WorkerProcess) -> int:
    return worker.output.count("opened a session")


def with_a_loss(
    start_worker: StartWorker, make_runner: MakeRunner, **config: object
) -> tuple[WorkerProcess, WorkerProcess, ClusterRunner, np.ndarray]:
    """A cluster that waits for the first of its two workers, and the logits from before."""
    lost, kept = start_worker(port=own_worker_port()), start_worker()
    runner = make_runner([lost, kept], rejoin_s=NEVER_S, **config)
    runner.start()
    before = logits(runner, TOKENS)
    lose(runner, lost, kept)
    return lost, kept, runner, before


def test_while_a_node_is_waited_for_the_session_without_it_is_prepared(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    lost, kept, runner, before = with_a_loss(start_worker, make_runner)
    with pytest.raises(PeerLost, match="is waited for"):
        runner.recover()
    assert n_opened(kept) == 2, "what was prepared is held"
    runner._roster.members.rejoin_s = 0.0  # the wait is over
    runner.recover()
    assert n_opened(kept) == 2, "and used"
    assert n_ranks(runner) == 2 and near(logits(runner, TOKENS), before)
    runner.idle()
    start_worker(port=lost.address.port)
    await_change(runner, TOKENS)
    runner.recover()
    assert n_ranks(runner) == 3 and (logits(runner, TOKENS) == before).all()


def test_a_node_that_is_back_in_time_takes_the_place_of_what_was_prepared_without_it(
    start_worker: StartWorker, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    lost, _, runner, before = with_a_loss(start_worker, make_runner, shares=[1, 2, 1])
    start_worker(port=lost.address.port)
    caplog.set_level("INFO")
    recover(runner)
    assert f"worker {lost.address} answers again; the session that was prepared" in caplog.text
    assert n_ranks(runner) == 3
    assert (logits(runner, TOKENS) == before).all()


def test_a_second_loss_while_the_first_is_waited_for(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    lost, kept, runner, before = with_a_loss(start_worker, make_runner)
    kept.end(signal.SIGKILL)
    deadline, said = time.monotonic() + PATIENCE_S, ""
    while str(kept.address) not in said:
        assert time.monotonic() < deadline, said
        with pytest.raises(PeerLost) as caught:
            runner.recover()
        said = str(caught.value)
    back = start_worker(port=lost.address.port)
    while n_opened(back) == 0:
        assert time.monotonic() < deadline
        with pytest.raises(PeerLost):
            runner.recover()
    runner._roster.members.rejoin_s = 0.0
    recover(runner)
    assert [row["host"] for row in runner.stats()[1:]] == [str(lost.address)]
    assert near(logits(runner, TOKENS), before)


def test_a_frozen_daemon_is_planned_without_and_taken_back_when_it_thaws(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    frozen, kept = start_worker(), start_worker()
    runner = make_runner([frozen, kept], rejoin_s=0.5)
    runner.start()
    before = logits(runner, TOKENS)
    frozen.process.send_signal(signal.SIGSTOP)
    idle_until_lost(runner)
    recover(runner)
    assert n_ranks(runner) == 2
    frozen.process.send_signal(signal.SIGCONT)
    await_change(runner)
    runner.recover()
    assert n_ranks(runner) == 3
    assert (logits(runner, TOKENS) == before).all()


def test_a_worker_drains_between_two_steps_and_ends_with_0(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    leaving, kept = start_worker(port=own_worker_port()), start_worker()
    runner = make_runner([leaving, kept])
    runner.start()
    before = logits(runner, TOKENS)
    leaving.process.send_signal(signal.SIGTERM)
    assert f"worker {leaving.address} leaves" in await_change(runner, TOKENS)
    runner.recover()
    assert n_ranks(runner) == 2
    assert leaving.process.wait(PATIENCE_S) == 0
    assert near(logits(runner, TOKENS), before)
    assert "drained: no session is open" in leaving.output
    start_worker(port=leaving.address.port)
    await_change(runner, TOKENS)
    runner.recover()
    assert n_ranks(runner) == 3


def test_a_second_signal_ends_a_worker_that_drains(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    runner = make_runner([worker])
    runner.start()
    worker.process.send_signal(signal.SIGTERM)
    await_change(runner)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0
    idle_until_lost(runner)


def test_a_node_that_drains_takes_no_session(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    first = make_runner([worker])
    first.start()
    worker.process.send_signal(signal.SIGTERM)
    await_change(first)
    with pytest.raises(ClusterError, match=r"refused: it drains and ends"):
        make_runner([worker]).start()


def test_all_workers_are_restarted_one_after_another_while_steps_go_on(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """With a real model in 4 bits: sums are exact, so that not one bit changes on the way."""
    workers = [
        start_worker(session_command=SESSION_COMMAND, port=own_worker_port()) for _ in range(2)
    ]
    path = write_toy(tmp_path / "toy.gguf", arch="qwen2", qtype=QType.Q4_0, dim=128, hidden_dim=256)
    source = open_model(path)
    config = ClusterConfig([w.address for w in workers], 8, 64, threads=1)
    runner = ClusterRunner(source, config, RankModel.load)
    seen = set()
    try:
        runner.start()
        before = logits(runner, TOKENS)
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
            for n in (2, 3):
                await_change(runner, TOKENS)
                recover(runner)
                assert n_ranks(runner) == n
                seen.add(n)
                assert (logits(runner, TOKENS) == before).all()
                if n == 2:
                    assert worker.process.wait(PATIENCE_S) == 0
                    start_worker(session_command=SESSION_COMMAND, port=worker.address.port)
    finally:
        runner.close()
        source.close()
    assert seen == {2, 3}
