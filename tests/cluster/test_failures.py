"""What can happen to a worker happens: killed, frozen, failing, left alone. Each is noticed, said
in a sentence, and the cluster serves again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from cluster.feed import FeedProgress
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.root.worker_link import HEARTBEAT_TIMEOUT_S
from cluster.root.worker_links import REASON_WAIT_S
from cluster.sockets import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
from dllama.errors import PeerLost
from tests.cluster.numpy_rank import FAIL_TOKEN, HANG_TOKEN, LOAD_HANGS_AT_PAGES, SLOW_TOKEN
from tests.cluster.steps import idle_until_lost, logits, prefill, recover
from tests.cluster.worker_process import HOUSE, WorkerProcess
from tests.ports import own_worker_port

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]

TOKENS = [5, 6, 7]
NOTICED_S = 5.0  # the promise of docs/architecture.md, with a second to spare


def test_the_limits_add_up_to_what_is_promised() -> None:
    links_s = (HEARTBEAT_MS + HEARTBEAT_TIMEOUT_MS) * 1e-3
    for noticed_s in (links_s, HEARTBEAT_TIMEOUT_S, ClusterConfig([], 8, 64, 1).hang_timeout_s):
        assert noticed_s + REASON_WAIT_S <= NOTICED_S


def assert_serves_again(runner: ClusterRunner, before: np.ndarray) -> None:
    with pytest.raises(PeerLost, match="recover"):
        runner.run(prefill(TOKENS))
    recover(runner)
    assert (logits(runner, TOKENS) == before).all()


@contextmanager
def started_root(worker: WorkerProcess) -> Iterator[subprocess.Popen[bytes]]:
    """A root in a process of its own, with a session on the worker; killed at the end."""
    words = [sys.executable, "-c", ROOT, str(worker.address)]
    root = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=HOUSE)
    try:
        assert root.stdout is not None and root.stdout.readline() == b"up\n"
        assert len(worker.sessions()) == 1
        yield root
    finally:
        root.kill()
        root.communicate()


@pytest.mark.parametrize("victim", ["session", "daemon"])
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP], ids=lambda s: s.name)
def test_an_idle_cluster_notices_and_comes_back(
    start_worker: StartWorker, make_runner: MakeRunner, victim: str, sig: signal.Signals
) -> None:
    workers = [start_worker(), start_worker(port=own_worker_port())]
    runner = make_runner(workers, rejoin_s=60.0)  # a daemon starts slowly on a busy machine
    runner.start()
    before = logits(runner, TOKENS)
    struck = workers[1]
    if victim == "session":
        struck.kill_session(sig)
    else:
        struck.process.send_signal(sig)
    lost = idle_until_lost(runner)
    assert lost.rank == 2 and str(struck.address) in str(lost)
    if victim == "daemon" and sig == signal.SIGKILL:
        struck.end()
        workers[1] = start_worker(port=struck.address.port)
    elif victim == "daemon":
        struck.process.send_signal(signal.SIGCONT)
    assert_serves_again(runner, before)
    assert all(len(w.sessions()) == 1 for w in workers)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP], ids=lambda s: s.name)
def test_a_loss_in_the_middle_of_a_step_ends_it(
    start_worker: StartWorker, make_runner: MakeRunner, sig: signal.Signals
) -> None:
    workers = [start_worker(), start_worker()]
    runner = make_runner(workers)
    runner.start()
    before = logits(runner, TOKENS)
    timer = threading.Timer(0.2, lambda: workers[0].kill_session(sig))
    timer.start()
    with pytest.raises(PeerLost) as lost:
        while True:
            runner.run(prefill([SLOW_TOKEN]))
    assert lost.value.rank == 1 and str(workers[0].address) in str(lost.value)
    timer.join()
    assert_serves_again(runner, before)


def test_a_process_that_freezes_while_it_loads_is_a_loss(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """Its daemon beats and its progress is not asked of it yet: only its links tell."""
    worker = start_worker()
    frozen: list[FeedProgress] = []

    def freeze(progress: FeedProgress) -> None:
        if not frozen:
            frozen.append(progress)
            worker.kill_session(signal.SIGSTOP)

    runner = make_runner([worker], on_progress=freeze)
    with pytest.raises(PeerLost, match=str(worker.address)):
        runner.start()
    assert frozen


def test_a_rank_that_stands_still_while_it_loads_is_a_loss(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """Its daemon beats and its links live: its progress tells."""
    worker = start_worker()
    runner = make_runner([worker], n_pages=LOAD_HANGS_AT_PAGES, load_hang_timeout_s=3.0)
    with pytest.raises(PeerLost, match="computed nothing for 3") as lost:
        runner.start()
    assert lost.value.rank == 1
    worker.await_no_session()
    make_runner([worker]).start()


def test_why_a_session_was_killed_is_told(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    runner = make_runner([worker])
    runner.start()
    worker.kill_session(signal.SIGKILL)
    lost = idle_until_lost(runner)
    assert "ended by SIGKILL; the system may have been out of memory" in str(lost)


def test_a_slow_step_is_no_loss(start_worker: StartWorker, make_runner: MakeRunner) -> None:
    runner = make_runner([start_worker()], hang_timeout_s=0.4)
    runner.start()
    for _ in range(3):
        logits(runner, [SLOW_TOKEN])
    runner.idle()


def test_a_rank_that_computes_without_end_is_a_loss(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """Its process lives, its links beat; only its progress stands still."""
    worker = start_worker()
    runner = make_runner([worker])
    runner.start()
    before = logits(runner, TOKENS)
    with pytest.raises(PeerLost, match="computed nothing for"):
        runner.run(prefill([HANG_TOKEN]))
    assert_serves_again(runner, before)
    assert len(worker.sessions()) == 1


def test_an_exception_on_a_worker_reaches_the_root(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    workers = [start_worker(), start_worker()]
    runner = make_runner(workers)
    runner.start()
    before = logits(runner, TOKENS)
    with pytest.raises(PeerLost, match="failed: RuntimeError: the kernel said no"):
        runner.run(prefill([FAIL_TOKEN]))
    assert_serves_again(runner, before)


ROOT = """
import sys, time
from cluster.feed import FeedProgress
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import parse_address
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
config = ClusterConfig([parse_address(sys.argv[1])], 8, 64, 1)
runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
runner.start()
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP], ids=lambda s: s.name)
def test_a_worker_goes_back_to_waiting_when_its_root_vanishes(
    start_worker: StartWorker, make_runner: MakeRunner, sig: signal.Signals
) -> None:
    worker = start_worker()
    with started_root(worker) as root:
        root.send_signal(sig)
        worker.await_no_session()
    make_runner([worker]).start()
    assert "ended: the root left" in worker.output  # whether before or after the next one opened


def test_a_stopped_session_does_not_outlive_its_root(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """It cannot see that its root has gone, and a root that was killed asks for nothing."""
    worker = start_worker()
    with started_root(worker) as root:
        worker.kill_session(signal.SIGSTOP)
        root.kill()
        worker.await_no_session()
    assert "ended: the root left" in worker.output
    make_runner([worker]).start()


def test_sessions_do_not_outlive_their_daemon(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    for sig in (signal.SIGKILL, signal.SIGINT):
        worker = start_worker()
        runner = make_runner([worker])
        runner.start()
        (session,) = worker.sessions()
        os.kill(worker.process.pid, sig)
        worker.process.wait(5)
        psutil.wait_procs([session], timeout=5)
        assert not session.is_running() or session.status() == psutil.STATUS_ZOMBIE
        runner.close()
