"""Ports that tests tell programs are told to no other, whatever checkout and process asks."""

from __future__ import annotations

import subprocess
import sys

from cluster.sockets import session_ports
from tests.ports import N_PORTS, N_WORKERS, own_port, own_worker_port

TELL = (
    "from tests.ports import *;"
    "print(*(own_port() for _ in range(N_PORTS)), *(own_worker_port() for _ in range(N_WORKERS)));"
    "input()"
)


def own_ports() -> tuple[set[int], set[int]]:
    """Every port that this process may tell a program, and those of sessions."""
    workers = [own_worker_port() for _ in range(N_WORKERS)]
    sessions = {port for worker in workers for port in session_ports(worker)}
    return {own_port() for _ in range(N_PORTS)} | set(workers), sessions


def test_sessions_of_workers_listen_on_no_port_that_a_program_is_told() -> None:
    """Before, a worker's first session took the port that another process told a root."""
    told, sessions = own_ports()
    assert len(told) == N_PORTS + N_WORKERS and not told & sessions


def test_processes_of_one_checkout_with_one_name_have_ports_of_their_own() -> None:
    told, sessions = own_ports()
    with subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        others = {int(word) for word in other.stdout.readline().split()}
        assert len(others) == N_PORTS + N_WORKERS
        assert not others & (told | sessions) and max(others | told) < 32_768
        other.communicate(b"\n")
