"""Machines of namespaces see each other over links that can be cut, one way or both, and no
memory of each other's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.lan.wire import LinkRule
from tests.chaos.namespaces import Machine, Network, why_no_machines
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
pytestmark = pytest.mark.usefixtures("no_leaks")
PORT = 5000
LISTEN = f"""
import socket
listening = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(b"hello")
    connection.close()
"""
ASK = f"""
import socket, sys
try:
    with socket.create_connection((sys.argv[1], {PORT}), float(sys.argv[2])) as end:
        print(end.recv(10).decode())
except OSError:
    print("silence")
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    why_not = why_no_machines()
    if why_not is not None:
        pytest.skip(why_not)
    made = Network(2, tmp_path, dict(os.environ))
    yield made
    made.close()


@pytest.fixture
def listening(network: Network) -> Iterator[None]:
    """Machine 2 says hello to whoever connects."""
    process = subprocess.Popen(
        [*network.machines[2].prefix, sys.executable, "-c", LISTEN], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        yield
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.wait()


def heard(machine: Machine, timeout_s: float) -> str:
    command = [*machine.prefix, sys.executable, "-c", ASK, "10.77.0.2", str(timeout_s)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.usefixtures("listening")
def test_links_are_cut_and_mended(network: Network) -> None:
    asking = network.machines[1]
    assert heard(asking, 20) == "hello"
    carried = network.carried_bytes()
    assert carried > 0
    for way in ((1, 2), (2, 1)):
        network.set_way(*way, LinkRule(is_cut=True))
        assert heard(asking, 0.5) == "silence"
        network.set_way(*way, LinkRule())
    network.set_links_of(2, LinkRule(loss=0.2), LinkRule(delay_s=0.02))
    assert heard(asking, 60) == "hello"  # TCP sends again what is lost
    assert network.carried_bytes() > carried


def test_machines_have_processes_and_boot_ids_of_their_own(network: Network) -> None:
    script = "cat /proc/sys/kernel/random/boot_id; ls -d /proc/[0-9]* | wc -l"
    said = [
        subprocess.run([*m.prefix, "sh", "-c", script], capture_output=True, text=True, check=True)
        for m in network.machines.values()
    ]
    boot_ids, n_processes = zip(*(each.stdout.split() for each in said), strict=True)
    assert len({*boot_ids, Path("/proc/sys/kernel/random/boot_id").read_text().strip()}) == 3
    assert all(int(n) < 10 for n in n_processes)


def test_this_machine_is_not_reached(network: Network) -> None:
    with socket.create_server(("127.0.0.1", PORT)) as ours:
        ours.settimeout(0.1)
        command = [*network.machines[1].prefix, sys.executable, "-c", ASK, "127.0.0.1", "1"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert said == "silence"
