"""A daemon beats while the killed process of a session is not gone, and opens the next one then.

Processes that wait for a disk do not end by SIGKILL. Here they do not hear it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from cluster.sockets import Address
from cluster.wire.messages import (
    CloseSession,
    Heartbeat,
    Message,
    SessionEnded,
    SessionReady,
    unpack,
)
from cluster.worker import open_sessions
from cluster.worker.daemon import Worker
from cluster.worker.session_process import SessionProcess
from cluster.worker.worker_config import WorkerConfig
from tests.cluster.worker.test_daemon import Root
from tests.cluster.worker_process import NUMPY_SESSION

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


class Daemon:
    """A daemon in a thread."""

    def __init__(self) -> None:
        self.worker = Worker(
            WorkerConfig(threads=1, host="127.0.0.1", port=0, session_command=NUMPY_SESSION)
        )
        self.worker.start()
        self.address = Address("127.0.0.1", self.worker.port)
        self._thread = threading.Thread(target=self.worker.run)
        self._thread.start()

    def close(self) -> None:
        self.worker.stop()
        self._thread.join()
        self.worker.close()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """One that kills in vain."""
    monkeypatch.setattr(SessionProcess, "kill", lambda session: None)
    made = Daemon()
    yield made
    made.close()


@pytest.fixture
def root(daemon: Daemon) -> Iterator[Root]:
    made = Root(daemon)  # type: ignore[arg-type]  # it wants the address alone
    yield made
    made.close()


def hear(root: Root, epoch: int) -> Message:
    while True:
        found, message = unpack(root.link.recv_multipart())
        if found == epoch:
            return message


def opened_twice(root: Root) -> SessionReady:
    """Opens a session, and another one instead of it; returns the first, which does not end."""
    root.open("me", 1, 2, epoch=5)
    first = root.hear()
    assert isinstance(first, SessionReady)
    root.open("me", 1, 2, epoch=6)
    return first


def test_the_next_session_waits_for_the_end_and_heartbeats_do_not(
    daemon: Daemon, root: Root
) -> None:
    other = Root(daemon)  # type: ignore[arg-type]
    other.open("somebody else", 1, 2, epoch=7)
    assert isinstance(other.hear(), SessionReady)
    first = opened_twice(root)
    began = time.monotonic()
    assert [hear(root, 6), hear(root, 6)] == [Heartbeat(0, 0)] * 2
    assert psutil.pid_exists(first.pid)
    assert isinstance(hear(other, 7), Heartbeat) and time.monotonic() - began < 3
    os.kill(first.pid, signal.SIGKILL)
    ready = root.hear()
    assert isinstance(ready, SessionReady) and ready.pid != first.pid
    assert not psutil.pid_exists(first.pid)
    other.close()


def test_a_session_that_is_closed_before_it_began_does_not_begin(
    daemon: Daemon, root: Root
) -> None:
    first = opened_twice(root)
    assert hear(root, 6) == Heartbeat(0, 0)
    root.say(CloseSession(), epoch=6)
    assert root.hear() == SessionEnded("there is no such session")
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)], 20)
    time.sleep(0.3)
    assert len(daemon.worker._sessions) == 0


def test_what_is_not_gone_in_time_holds_nobody_up(
    daemon: Daemon, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it still has of the memory counts as taken."""
    monkeypatch.setattr(open_sessions, "GONE_S", 0.5)
    first = opened_twice(root)
    ready = root.hear()
    assert isinstance(ready, SessionReady) and psutil.pid_exists(first.pid)
