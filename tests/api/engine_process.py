"""An engine process in a thread: an engine in cluster's own EngineServer, at the other end of a
ZmqEngineClient."""

from __future__ import annotations

import os
import threading

from cluster.engine_server import EngineServer
from dllama.engine.engine import Engine


class EngineProcess:
    """Connects to `endpoint`, as an engine that a supervisor has started does; `die` ends it
    without a last word."""

    def __init__(self, engine: Engine, endpoint: str) -> None:
        self._parent_fd, self._lifeline = os.pipe()
        server = EngineServer(
            lambda progress: engine, endpoint, bind=False, parent_fd=self._parent_fd
        )
        self._thread = threading.Thread(target=server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def die(self) -> None:
        os.close(self._lifeline)
        self._thread.join()
        os.close(self._parent_fd)
