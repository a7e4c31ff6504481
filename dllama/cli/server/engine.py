"""The engine process: one model, one Python thread. Started by dllama-root, not by hand."""

from __future__ import annotations

import json
import signal
import sys

from dllama.cli.server.pulse import begin_pulse
from dllama.cli.terminal.guarded import guarded
from dllama.host.garbage import collector_paused


def run(argv: list[str] | None) -> int:
    # These may reach the whole group of processes: the server decides when the engine ends, and
    # closes our stdin then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    # All that takes time to import, before there is anything to do.
    with collector_paused():
        from cluster.engine_server import EngineServer
        from dllama.cli.build import build_engine
        from dllama.cli.flags.settings import EngineSettings
        from dllama.logs.settings import LogSettings, set_up_logging

    begin_pulse()
    line = sys.stdin.buffer.readline()
    if not line:
        return 0  # the server has given up before it knew what to serve
    told = json.loads(line)
    settings = EngineSettings.from_json(told["settings"])
    set_up_logging(LogSettings(**told["log"]), model=settings.name or settings.model, rank=0)
    server = EngineServer(
        lambda report: build_engine(settings, report, with_grammars=True),
        told["endpoint"],
        bind=False,
        parent_fd=sys.stdin.fileno(),
        max_recover_s=settings.max_recover_s,
    )
    return server.run()


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
