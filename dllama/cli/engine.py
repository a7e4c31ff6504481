"""The engine process: one model, one Python thread. Started by dllama-root, not by hand."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from cluster.engine_server import EngineServer
from dllama.cli.build import build_engine
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.guarded import guarded
from dllama.cli.terminal import set_up_logging

log = logging.getLogger(__name__)


def run(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="dllama engine", description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    parser.add_argument("--log-level", default="warning")
    args = parser.parse_args(argv)
    set_up_logging(args.log_level)
    # These may reach the whole group of processes: the server decides when the engine ends, and
    # closes our stdin then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    settings = EngineSettings.from_json(args.settings)
    server = EngineServer(
        lambda report: build_engine(settings, report, with_grammars=True),
        args.endpoint,
        bind=False,
        parent_fd=sys.stdin.fileno(),
    )
    return server.run()


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
