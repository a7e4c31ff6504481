"""Machines of a benchmark reach each other, and what one sends arrives as late as was said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.namespaces import await_listening, is_listening, lan_of, why_no_namespaces
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
PORT = 5000
ECHO = f"""
import socket
listening = socket.create_server(("0.0.0.0", {PORT}))
connection, _ = listening.accept()
while data := connection.recv(1 << 16):
    connection.sendall(data)
"""
ASK = f"""
import socket, sys, time
message = bytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], {PORT}), 60) as end:
    trips = []
    for _ in range(5):
        began = time.monotonic()
        end.sendall(message)
        n = 0
        while n < len(message):
            n += len(end.recv(1 << 16))
        trips.append(time.monotonic() - began)
print(min(trips))
"""


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    ("rate_mbit", "delay_ms", "n_bytes", "least_s"),
    [(1000, 0.0, 5, 0.0), (1000, 3.0, 5, 6e-3), (20, 0.0, 8192, 2e-3), (20, 1.0, 30_000, 6e-3)],
)
def test_a_trip_there_and_back_takes_its_time(
    rate_mbit: float, delay_ms: float, n_bytes: int, least_s: float
) -> None:
    """Twice the delay; on a slow link, what a message takes there, all but its first packet."""
    why_not = why_no_namespaces()
    if why_not is not None:
        pytest.skip(why_not)
    if delay_ms and not os.path.exists("/dev/net/tun"):  # noqa: PTH110
        pytest.skip("delays need /dev/net/tun")
    with lan_of(2, rate_mbit, delay_ms) as lan:
        cores = sorted(os.sched_getaffinity(0))[:1]
        echo = subprocess.Popen(lan.command(1, [sys.executable, "-c", ECHO], cores))
        try:
            await_listening(echo.pid, PORT, 60)
            asked = subprocess.run(
                lan.command(0, [sys.executable, "-c", ASK, lan.address(1), str(n_bytes)]),
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            assert float(asked.stdout) >= least_s
            assert lan.sent_bytes(0) > 0
        finally:
            echo.kill()
            echo.wait()
        names = lan.names
    left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    assert not set(names) & set(left.stdout.split())


def test_what_is_refused_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_no_namespaces() == "network namespaces need root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "need the command ip" in str(why_no_namespaces())
    for tool in ("ip", "tc", "taskset", "nsenter"):
        refuses = tmp_path / tool
        refuses.write_text("#!/bin/sh\necho Operation not permitted >&2\nexit 1\n")
        refuses.chmod(0o755)
    assert str(why_no_namespaces()).endswith("Operation not permitted")


def test_a_port_is_listened_to_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        await_listening(os.getpid(), port, 20)
    assert not is_listening(os.getpid(), port)
    with pytest.raises(TimeoutError, match=f"nothing listens to port {port} after 0.1 s"):
        await_listening(os.getpid(), port, 0.1)
