"""The command line of dllama-worker."""

from __future__ import annotations

import argparse

from dllama.cli.flags.arguments import default_threads, port_number, positive, thread_count
from dllama.cli.flags.cluster import add_security_flags
from dllama.cli.flags.logs import add_log_flags
from dllama.cli.flags.parser import FlagParser, make_parser

DESCRIPTION = """Compute for a dllama-root: start this on every machine that should help.

A worker needs no model and no configuration: the root sends its share of the weights, which is
kept on disk for the next time. When the root leaves, the worker goes back to waiting. Sessions use
the ports after --port (up to 64). SIGTERM drains it: roots plan without it between two steps, and
it ends when they have, 30 s later at the latest; SIGINT or a second SIGTERM ends it at once."""
EPILOG = """examples:
  dllama-worker
  dllama-worker --port 9998 --threads 4
  dllama-worker --host 10.0.0.2        # listen on one network only
  dllama-worker --cluster-key @/etc/dllama.key    # for roots that have the same key"""

DEFAULT_CACHE_GB = 32.0
DEFAULT_SESSIONS = 16  # cluster.worker.slots.DEFAULT_SESSIONS, which brings in zmq


def gigabytes(text: str) -> float:
    """A size in GB, 0 or more."""
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no size in GB; expected a number from 0 on")
    return size


def session_count(text: str) -> int:
    """An argparse type: a number of sessions, of which each takes ports."""
    from cluster.sockets import SESSION_PORTS  # brings in zmq
    from cluster.worker.slots import MOST_SESSIONS

    number = positive(text)
    if number > MOST_SESSIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r} sessions need more than the {SESSION_PORTS} ports after --port; choose up "
            f"to {MOST_SESSIONS}, or start a second worker on another --port"
        )
    return number


def build_parser() -> FlagParser:
    """Returns the parser of dllama-worker's flags."""
    parser = make_parser("dllama-worker", DESCRIPTION, EPILOG)
    parser.own = ("host", "port", "log_level")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=port_number, default=9998, help="port to listen on")
    parser.add_argument(
        "-t", "--threads", metavar="N", type=thread_count, default=default_threads(),
        help="compute threads of a session",
    )  # fmt: skip
    add_security_flags(parser)
    parser.add_argument(
        "--cache-dir", metavar="DIR",
        help="where weights are kept, so that a second start sends none (default: beside the "
        "compiled kernels)",
    )  # fmt: skip
    parser.add_argument(
        "--cache-gb", metavar="GB", type=gigabytes, default=DEFAULT_CACHE_GB,
        help="how much of them; the least recently used go first, and a tenth of the disk stays "
        "free; 0 keeps none",
    )  # fmt: skip
    parser.add_argument(
        "--max-sessions", metavar="N", type=session_count, default=DEFAULT_SESSIONS,
        help="models of all roots that are loaded here at once, where there is memory; one "
        "machine's roots get three quarters of them",
    )  # fmt: skip
    add_log_flags(parser, "info")
    return parser
