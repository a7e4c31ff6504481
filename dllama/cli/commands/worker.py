"""dllama-worker: one process on each machine that lends its processor and memory to a root."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from dllama.cli.flags.logs import log_settings
from dllama.cli.flags.worker import build_parser
from dllama.cli.sources.reading import read_flags
from dllama.cli.terminal.guarded import guarded

WORKER_DESCRIPTORS = 20  # ZeroMQ's, a root's link, and a session's pipe and counters


def run(argv: list[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    return run_worker(read_flags(build_parser(), "worker", words).args)


def run_worker(args: argparse.Namespace) -> int:
    """Runs a daemon until a signal. Raises ConfigError before it listens. What it needs is imported
    here: questions about the flags are answered without it."""
    from cluster.security.settings import security_of, warn_if_plain
    from cluster.weights.files import weights_folder
    from cluster.worker.daemon import Worker
    from cluster.worker.worker_config import WorkerConfig
    from dllama.host.descriptors import check_free, raise_limit
    from dllama.logs.settings import set_up_logging

    logs = log_settings(args)
    set_up_logging(logs)
    raise_limit()
    check_free(WORKER_DESCRIPTORS, "dllama-worker")
    security = security_of(args.cluster_key, encrypts=not args.no_encrypt)
    warn_if_plain(security, [args.host])
    worker = Worker(
        WorkerConfig(
            threads=args.threads,
            host=args.host,
            port=args.port,
            security=security,
            cache_dir=str(Path(args.cache_dir or weights_folder()).absolute()),
            cache_bytes=int(args.cache_gb * 1e9),
            max_sessions=args.max_sessions,
            logs=logs,
        )
    )

    def stop(signum: int, frame: FrameType | None) -> None:
        worker.stop()

    def drain(signum: int, frame: FrameType | None) -> None:
        worker.drain()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, drain)
    worker.start()
    try:
        worker.run()
    finally:
        worker.close()
    return 0


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
