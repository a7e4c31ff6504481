"""Ports for programs that are told one: nobody else's, for as long as the tests run.

A port that the system gives (port 0) and that is let go may be given to another process before it
is used again. These lie below the range it gives from, in a part of each checkout and of each
pytest-xdist worker.
"""

from __future__ import annotations

import os
import socket
import zlib
from itertools import count
from pathlib import Path

FIRST, LAST = 10_000, 30_000  # Linux gives ports from 32768 on
PER_WORKER = 25
WORKERS = 8  # of one checkout
PER_CHECKOUT = PER_WORKER * WORKERS

_numbers = count()


def own_port() -> int:
    """A port of 127.0.0.1 that no other test is told."""
    checkout = zlib.crc32(str(Path(__file__).parents[1]).encode())
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    first = FIRST + checkout % ((LAST - FIRST) // PER_CHECKOUT) * PER_CHECKOUT
    for number in _numbers:
        port = first + worker * PER_WORKER + number % PER_WORKER
        if number >= 20 * PER_WORKER:
            break
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # of a program that runs
            return port
    raise AssertionError(f"no port from {first + worker * PER_WORKER} on is free")
