"""The process of one model session on a worker; started by dllama-worker, not by hand."""

from __future__ import annotations

import sys

from cluster.worker.session import main as run_session
from dllama.cli.terminal.guarded import guarded
from dllama.runtime.rank import RankModel


def run(argv: list[str] | None) -> int:
    return run_session(RankModel.load)


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
