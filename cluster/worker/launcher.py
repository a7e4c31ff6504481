"""Starts the processes of sessions, one of them ahead of time: a new Python takes half a second to
import what a rank needs, which no root should wait for."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.worker.progress import ProgressFile
from dllama.errors import DllamaError
from dllama.host.child_python import child_command, child_environment

SESSION_COMMAND = tuple(child_command("dllama.cli.worker_session"))
PREPARE_AFTER_S = 2.0  # since a session loaded last: it has the processor to itself until then


@dataclass(frozen=True, slots=True)
class Child:
    """A process that waits for one line on its standard input, and its counters."""

    process: subprocess.Popen[bytes]
    progress: ProgressFile

    def close(self) -> None:
        """Kills the process if it still runs, and releases its pipe and its counters."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.progress.close()


class Launcher:
    """Keeps one process ready. Not thread-safe."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._ready: Child | None = None
        self._busy_s = float("-inf")  # when a session was last known to come up

    def take(self, now_s: float) -> Child:
        """Returns the process that is ready, or a new one. Raises OSError, DllamaError."""
        self._busy_s = now_s
        ready, self._ready = self._ready, None
        if ready is not None and ready.process.poll() is None:
            return ready
        if ready is not None:
            ready.close()
        return self._start()

    def put_off(self, now_s: float) -> None:
        """Puts the next `prepare` off, as a session loads: a start costs half a second of processor
        time, which that session would wait for."""
        self._busy_s = now_s

    def prepare(self, now_s: float) -> None:
        """Starts a process for the next session, unless there is one or a session has just been
        coming up. Where it cannot be started, the next session will say why."""
        if self._ready is None and now_s - self._busy_s >= PREPARE_AFTER_S:
            self._busy_s = now_s  # a failure is not repeated at once
            with contextlib.suppress(OSError, DllamaError):
                self._ready = self._start()

    def close(self) -> None:
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def _start(self) -> Child:
        """Starts a process, in a session of its own: Ctrl-C at the daemon is not for it."""
        progress = ProgressFile.create()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=child_environment(),
                start_new_session=True,
                pass_fds=progress.descriptors,
            )
        except BaseException:
            progress.close()
            raise
        return Child(process, progress)
