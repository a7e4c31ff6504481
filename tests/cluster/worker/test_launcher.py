"""A process is ready before it is asked for; without one, the next is started as it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import psutil
import pytest

from cluster.worker.launcher import PREPARE_AFTER_S, Child, Launcher

WAITS = [sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.readline()))"]

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher(WAITS)
    yield made
    made.close()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def told(child: Child) -> int:
    """The exit code, after one line."""
    assert child.process.stdin is not None
    child.process.stdin.write(b"12345\n")
    child.process.stdin.flush()
    code = child.process.wait(20)
    child.close()
    return code


def test_the_process_that_is_ready_is_taken(launcher: Launcher) -> None:
    before = children()
    launcher.prepare(0.0)
    [ready] = children() - before
    launcher.prepare(1.0)
    assert len(children() - before) == 1
    child = launcher.take(1.0)
    assert child.process.pid == ready and told(child) == 6


def test_the_next_is_started_when_the_session_has_begun(launcher: Launcher) -> None:
    before = children()
    child = launcher.take(10.0)
    launcher.prepare(10.0 + PREPARE_AFTER_S / 2)
    assert children() - before == {child.process.pid}
    launcher.prepare(10.0 + PREPARE_AFTER_S)
    assert len(children() - before) == 2
    assert told(child) == 6


def test_the_next_waits_until_the_session_has_loaded(launcher: Launcher) -> None:
    """A start takes processor time, which the session needs more."""
    before = children()
    child = launcher.take(10.0)
    for second in range(11, 20):
        launcher.put_off(float(second))
        launcher.prepare(float(second))
    assert children() - before == {child.process.pid}
    launcher.prepare(19.0 + PREPARE_AFTER_S)
    assert len(children() - before) == 2
    assert told(child) == 6


def test_a_process_that_died_meanwhile_is_replaced(launcher: Launcher) -> None:
    before = children()
    launcher.prepare(0.0)
    [ready] = children() - before
    os.kill(ready, 9)
    psutil.Process(ready).wait(10)
    child = launcher.take(1.0)
    assert child.process.pid != ready and told(child) == 6


def test_a_command_that_is_missing_is_told_by_take_only() -> None:
    launcher = Launcher(["/no/such/program"])
    launcher.prepare(0.0)
    with pytest.raises(OSError, match="/no/such/program"):
        launcher.take(1.0)
    launcher.close()
