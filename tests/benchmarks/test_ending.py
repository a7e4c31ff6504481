"""What a benchmark has started ends with it, also what does not listen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, namespaces, restart
from benchmarks.compare import Peer, local_workers
from benchmarks.lan import carrier
from benchmarks.lan.carrier import Carrier
from benchmarks.namespaces import Lan
from benchmarks.restart import Node
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
pytestmark = pytest.mark.usefixtures("no_leaks")
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('{}', flush=True); "
DEAF += "time.sleep(600)"
COMMAND = [sys.executable, "-c", DEAF]


def await_said(file: Path) -> None:
    while not file.read_text():
        pass


@pytest.mark.timeout(60)
def test_a_node_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "END_S", 0.1)
    node = Node(COMMAND, tmp_path, "log")
    await_said(tmp_path / "log")
    node.end()
    assert node.process.returncode == -9


@pytest.mark.timeout(60)
def test_a_peer_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "END_S", 0.1)
    peer = Peer("deaf", COMMAND, 1)
    peer.close()
    assert peer._process.returncode == -9


@pytest.mark.timeout(60)
def test_workers_that_do_not_end_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "END_S", 0.1)
    said = [tmp_path / "0", tmp_path / "1"]
    files = iter(said)
    script = "import sys; sys.stdout = open(sys.argv[1], 'w'); " + DEAF
    with local_workers(2, lambda port: [sys.executable, "-c", script, str(next(files))]):
        for file in said:
            while not file.exists():
                pass
            await_said(file)


@pytest.mark.timeout(60)
def test_a_carrier_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "CLOSE_S", 0.1)
    started = subprocess.Popen

    def deaf(command: list[str], **options: object) -> subprocess.Popen[str]:
        return started(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(carrier.subprocess, "Popen", deaf)
    carried = Carrier({})
    carried.close()
    assert carried._process.returncode == -9


def test_namespaces_are_taken_away_whatever_the_carrier_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stuck:
        def close(self) -> None:
            raise OSError("the process that carries packets cannot be ended")

    lan, commands = Lan(2, 1000, 1.0), []
    lan._carrier = Stuck()  # type: ignore[assignment]
    monkeypatch.setattr(namespaces.subprocess, "run", lambda words, **_: commands.append(words))
    with pytest.raises(OSError, match="cannot be ended"):
        lan.close()
    assert commands == [["ip", "netns", "del", name] for name in (*lan.names, lan.hub)]
