"""A worker that is ready waits for those that are not, and says so where no root joins it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from cluster.meeting_times import (
    JOIN_DEADLINE_S,
    JOIN_TIMEOUT_S,
    MESH_TIMEOUT_S,
    START_TIMEOUT_S,
)
from cluster.root.runner import ClusterRunner
from cluster.wire.messages import SessionEnded, SessionReady
from tests.cluster.steps import logits
from tests.cluster.worker.test_daemon import Root
from tests.cluster.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]
SESSION = """
import sys, time
from cluster.worker import session
from tests.cluster.numpy_rank import load_numpy_rank
{first}
sys.exit(session.main(load_numpy_rank))
"""


def command(first: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SESSION.format(first=first))


def test_who_is_ready_waits_for_the_slowest_start() -> None:
    """Join goes out when all have started, which takes START_TIMEOUT_S at most."""
    assert JOIN_TIMEOUT_S > START_TIMEOUT_S
    assert JOIN_DEADLINE_S > START_TIMEOUT_S + MESH_TIMEOUT_S
    assert JOIN_DEADLINE_S > JOIN_TIMEOUT_S + MESH_TIMEOUT_S


def test_a_slow_start_keeps_the_others_waiting(
    start_worker: StartWorker, make_runner: Callable[..., ClusterRunner]
) -> None:
    fast = start_worker()
    slow = start_worker(session_command=command("time.sleep(4)"))
    runner = make_runner([fast, slow])
    runner.start()
    assert logits(runner, [5, 6, 7]).size


def test_that_no_root_joined_is_the_reason(start_worker: StartWorker) -> None:
    worker = start_worker(session_command=command("session.JOIN_TIMEOUT_S = 0.5"))
    root = Root(worker)
    root.open("me", 1, 2, epoch=5)
    assert isinstance(root.hear(), SessionReady)
    assert root.hear() == SessionEnded("no root joined it within 0.5 s")
    root.close()
