"""The process of a session, which its daemon starts, watches and ends. Sends no messages."""

from __future__ import annotations

import contextlib
import signal
import time

import psutil

from cluster.security.peer import Peer
from cluster.worker.launcher import Child
from cluster.worker.session_config import SessionConfig

KILL_AFTER_S = 2.0


class SessionProcess:
    """One child process. `reason` is why it ended, if it could tell."""

    def __init__(self, config: SessionConfig, root: str, peer: Peer, child: Child) -> None:
        self.config = config
        self.root = root  # which root it belongs to
        self.peer = peer  # where that root is to be answered
        self.reason = ""
        self._child, self._process = child, child.process
        self._watched = psutil.Process(child.process.pid)
        self._kill_at = float("inf")

    def begin(self) -> None:
        """Tells the process what it is to be: from here on it runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: poll() will tell
            self._process.stdin.write(self.config.to_line())
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        """Returns whether the process has ended; kills it KILL_AFTER_S after an end() in vain."""
        if self._process.poll() is None and time.monotonic() > self._kill_at:
            self._process.kill()
        return self._process.poll() is not None

    def why(self) -> str:
        """Returns the reason why the process ended."""
        code = self._process.returncode
        if self.reason or code == 0:
            return self.reason or "the root left"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = "; the system may have been out of memory" if -code == 9 else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with code {code}; the worker's own output says more"

    def progress(self) -> int:
        return self._child.progress.total()

    def rss_bytes(self) -> int:
        try:
            return int(self._watched.memory_info().rss)
        except (psutil.Error, OSError):  # it has ended, or there are no descriptors for a moment
            return 0

    def end(self, reason: str) -> None:
        """Sends SIGTERM to the process; has_ended() kills it where that does not suffice."""
        if self._kill_at == float("inf"):
            self.reason = self.reason or reason
            self._kill_at = time.monotonic() + KILL_AFTER_S
            self._process.terminate()
            with contextlib.suppress(ProcessLookupError, AttributeError):
                self._process.send_signal(signal.SIGCONT)  # a stopped one would never hear it

    def kill(self) -> None:
        """Sends SIGKILL to the process; has_ended() tells when it is gone."""
        self._process.kill()

    def close(self) -> None:
        """Kills the process if it still runs and waits for its end, and releases its pipe and its
        counters."""
        self._child.close()
