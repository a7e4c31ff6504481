"""The pulse of an engine's process, and when its supervisor takes it for still."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from dllama.cli.server.pulse import GAP_S, PulseWatch, has_beaten
from dllama.host.child_python import child_environment

pytestmark = pytest.mark.timeout(240)

BEATING = """
import dllama.cli.server.pulse as pulse, sys, time
pulse.BEAT_S = 0.05
pulse.begin_pulse()
print("to standard error", flush=True)
sys.stdin.read()
"""


def looks(watch: PulseWatch, beats: str, *, start: float = 0.0) -> list[bool]:
    """A look a second; "." is a beat."""
    return [watch.is_still(beat == ".", start + i) for i, beat in enumerate(beats)]


def test_a_process_is_still_once_it_does_not_beat_for_too_long() -> None:
    assert looks(PulseWatch(3.0), ". . .    ") == [False] * 8 + [True]
    assert looks(PulseWatch(3.0), ".   .   .   .") == [False] * 13


def test_a_process_that_has_not_beaten_yet_is_not_judged() -> None:
    assert not any(looks(PulseWatch(3.0), " " * 100))


def test_a_watcher_that_was_stopped_itself_counts_anew() -> None:
    watch = PulseWatch(30.0)
    looks(watch, ".")
    resumed = GAP_S + 1_000.0
    assert looks(watch, " " * 32, start=resumed) == [False] * 31 + [True]


def test_a_process_beats_until_it_is_stopped() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BEATING],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    pipe = process.stdout

    def within(condition: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.01)
        return False

    try:
        assert all(within(lambda: has_beaten(pipe), 30.0) for _ in range(3))
        process.send_signal(signal.SIGSTOP)
        within(lambda: not has_beaten(pipe), 1.0)
        time.sleep(0.2)
        has_beaten(pipe)
        assert not within(lambda: has_beaten(pipe), 1.0)
        process.send_signal(signal.SIGCONT)
        assert within(lambda: has_beaten(pipe), 30.0)
        process.stdin.close()
        assert process.wait(30.0) == 0
        assert process.stderr.read() == b"to standard error\n"
        assert not within(lambda: has_beaten(pipe), 0.2), "what is at its end"
    finally:
        process.kill()
        process.wait()
        pipe.close()
        process.stderr.close()
