"""The process of a session, which its daemon starts, watches and ends. Sends no messages."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence

import psutil

from cluster.security.peer import Peer
from cluster.worker.progress import ProgressFile
from cluster.worker.session_config import SessionConfig
from dllama.host.child_python import child_command, child_environment

SESSION_COMMAND = tuple(child_command("dllama.cli.worker_session"))
KILL_AFTER_S = 2.0


class SessionProcess:
    """One child process. `reason` is why it ended, if it could tell."""

    def __init__(self, config: SessionConfig, root: str, peer: Peer) -> None:
        self.config = config
        self.root = root  # which root it belongs to
        self.peer = peer  # where that root is to be answered
        self.reason = ""
        self._progress: ProgressFile | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: psutil.Process | None = None
        self._kill_at = float("inf")

    @staticmethod
    def create_progress() -> ProgressFile:
        return ProgressFile.create()

    def start(self, command: Sequence[str], progress: ProgressFile) -> None:
        """Starts the process, in a session of its own: Ctrl-C at the daemon is not for it."""
        self._progress = progress
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
            pass_fds=progress.descriptors,
        )
        self._watched = psutil.Process(self._process.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: poll() will tell
            self._process.stdin.write(self.config.to_line())
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def has_ended(self) -> bool:
        """Returns whether the process has ended; kills it KILL_AFTER_S after an end() in vain."""
        assert self._process is not None
        if self._process.poll() is None and time.monotonic() > self._kill_at:
            self._process.kill()
        return self._process.poll() is not None

    def why(self) -> str:
        """Returns the reason why the process ended."""
        assert self._process is not None
        code = self._process.returncode
        if self.reason or code == 0:
            return self.reason or "the root left"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = "; the system may have been out of memory" if -code == 9 else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with code {code}; the worker's own output says more"

    def progress(self) -> int:
        return self._progress.total() if self._progress is not None else 0

    def rss_bytes(self) -> int:
        try:
            return int(self._watched.memory_info().rss) if self._watched is not None else 0
        except psutil.Error:
            return 0

    def end(self, reason: str) -> None:
        """Sends SIGTERM to the process; has_ended() kills it where that does not suffice."""
        assert self._process is not None
        if self._kill_at == float("inf"):
            self.reason = self.reason or reason
            self._kill_at = time.monotonic() + KILL_AFTER_S
            self._process.terminate()
            with contextlib.suppress(ProcessLookupError, AttributeError):
                self._process.send_signal(signal.SIGCONT)  # a stopped one would never hear it

    def close(self) -> None:
        """Kills the process if it still runs, and releases its pipe and its counters."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._progress is not None:
            self._progress.close()
