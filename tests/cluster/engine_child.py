"""An engine process for the tests: the real server over the runner of the tests.

python -m tests.cluster.engine_child ENDPOINT
"""

from __future__ import annotations

import sys

from cluster.engine_server import EngineServer
from dllama.engine.engine import Engine
from dllama.engine.loop import Progress
from tests.dllama.engine.history_runner import HistoryRunner


def load(report: Progress) -> Engine:
    report(0.5, "half of it")
    return Engine(HistoryRunner())


if __name__ == "__main__":
    sys.exit(EngineServer(load, sys.argv[1], parent_fd=sys.stdin.fileno()).run())
