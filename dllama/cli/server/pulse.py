"""The pulse of an engine's process: a byte a second on its standard output, by a thread that does
nothing else. Long steps, loads and compilations do not stop it; SIGSTOP does, or a machine that
swaps to death."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import IO

BEAT_S = 1.0
STILL_S = 60.0  # without a beat; generous, as a machine may be short of memory or of CPU time
GAP_S = 5.0  # between two looks: then it is the one that looks who was stopped


def begin_pulse() -> None:
    """Beats on standard output from now on; what is printed goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(out, False)

    def beat() -> None:
        with suppress(BrokenPipeError):  # the server has ended, and we will
            while True:
                with suppress(BlockingIOError):  # nobody has looked for hours
                    os.write(out, b".")
                time.sleep(BEAT_S)

    threading.Thread(target=beat, name="pulse", daemon=True).start()


def has_beaten(pipe: IO[bytes]) -> bool:
    """Returns whether a process has beaten since the last call. `pipe` is its standard output."""
    os.set_blocking(pipe.fileno(), False)
    try:
        return bool(os.read(pipe.fileno(), 1 << 16))
    except BlockingIOError:
        return False


class PulseWatch:
    """Decides when a process stands still. It is not judged before its first beat: it imports."""

    def __init__(self, still_s: float) -> None:
        self._still_s = still_s
        self._beat_s: float | None = None
        self._looked_s = 0.0

    def is_still(self, has_beaten: bool, now_s: float) -> bool:
        """Records a look; returns whether there was no beat for too long."""
        was_away = now_s - self._looked_s > GAP_S
        self._looked_s = now_s
        if has_beaten or (was_away and self._beat_s is not None):
            self._beat_s = now_s
        return self._beat_s is not None and now_s - self._beat_s > self._still_s
