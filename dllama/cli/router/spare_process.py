"""An engine's process that is started ahead of time: it imports what computes, which takes half a
second that no request should wait for."""

from __future__ import annotations

import asyncio
import logging
import subprocess

from dllama.cli.server.engine_process import end_engine, start_engine

log = logging.getLogger(__name__)

PREPARE_AFTER_S = 2.0  # since the last load began: that has the processor to itself until then


class SpareProcess:
    """Keeps one process ready. Used on the event loop only."""

    def __init__(self, started: subprocess.Popen[bytes] | None) -> None:
        self._ready = started
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> subprocess.Popen[bytes] | None:
        """Returns the process that is ready, None without one, and starts the next in a while."""
        ready, self._ready = self._ready, None
        self._put_off()
        if ready is not None and ready.poll() is not None:
            end_engine(ready)
            return None
        return ready

    def close(self) -> None:
        """Ends the process that nobody has taken."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ready is not None:
            end_engine(self._ready)
            self._ready = None

    def _put_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PREPARE_AFTER_S, self._prepare)

    def _prepare(self) -> None:
        try:
            self._ready = self._ready or start_engine()
        except OSError as error:  # the next load says why, if it is so still
            log.info("no process was started ahead of time: %s", error)
