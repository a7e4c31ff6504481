"""Ports for programs that are told one: nobody else's, for as long as the tests run.

A port that the system gives (port 0) and that is let go may be given to another process before it
is used again. These lie below the range it gives from. Every process of tests, of whatever
checkout, has a block of its own, which the system keeps for it: the first port of the block is
bound until the process ends, and nobody else's bind to it succeeds meanwhile. A worker's sessions
listen on the ports after its own, so it is told one with as many behind it that are told to nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import cycle

from cluster.sockets import DEFAULT_PORT, SESSION_PORTS

N_PORTS, N_WORKERS = 39, 8  # of a block; they are told again once what used them has ended
WORKER_PORTS = 1 + SESSION_PORTS
BLOCK = 1 + N_PORTS + N_WORKERS * WORKER_PORTS
FIRST, LAST = DEFAULT_PORT + WORKER_PORTS, 32_767  # a root's; Linux gives ports from 32768 on


def _claimed() -> socket.socket:
    """Binds the first port of a block that no other process of tests has."""
    for first in range(FIRST, LAST - BLOCK, BLOCK):
        claim = socket.socket()  # without SO_REUSEADDR, which would let two have it
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        return claim
    raise AssertionError(f"all blocks of ports from {FIRST} to {LAST} are claimed; end other tests")


_claim = _claimed()  # at import, before a test counts descriptors
_first = _claim.getsockname()[1]
_ports = cycle(range(_first + 1, _first + 1 + N_PORTS))
_worker_ports = cycle(range(_first + 1 + N_PORTS, _first + BLOCK, WORKER_PORTS))


def own_port() -> int:
    """Returns a port of 127.0.0.1 that no other test is told."""
    return _free(_ports, N_PORTS)


def own_worker_port() -> int:
    """Returns one for a worker, whose sessions are on ports that no other test is told either."""
    return _free(_worker_ports, N_WORKERS)


def _free(ports: Iterator[int], n_ports: int) -> int:
    for _ in range(n_ports):
        port = next(ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # of a program that runs
            return port
    raise AssertionError(f"programs listen on all {n_ports} ports of the block at {_first}")
