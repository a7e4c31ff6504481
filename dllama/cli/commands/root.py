"""dllama-root: serves one model over HTTP, on this machine and any number of workers.

The engine's process is started before anything else: it imports what computes while this one
imports the web server and reads its flags.
"""

from __future__ import annotations

import subprocess
import sys

from dllama.cli.server.engine_process import end_engine, start_engine
from dllama.cli.terminal.guarded import guarded
from dllama.host.garbage import collector_paused

QUESTIONS = ("-h", "--help", "--version")  # answered without what serves


def run(argv: list[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if any(word in QUESTIONS for word in words):
        from dllama.cli.flags.root import build_parser

        build_parser().parse_args(words)  # which answers, and ends the process
    started = _started_early()
    try:
        with collector_paused():
            import api.http.lean_aiohttp  # noqa: F401  (before what imports aiohttp itself)
            from dllama.cli.server.serving import serve_model

        return serve_model(words, started)
    finally:
        if started is not None:
            end_engine(started)


def _started_early() -> subprocess.Popen[bytes] | None:
    try:
        return start_engine()
    except OSError:
        return None  # the supervisor tries again, and tells why


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
