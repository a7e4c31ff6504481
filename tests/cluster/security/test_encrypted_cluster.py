"""A cluster whose links are all encrypted computes what a plain one does, and lets nobody in."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import sockets
from cluster.front.connection import MAX_UNREAD
from cluster.root.runner import ClusterRunner
from cluster.security.settings import Security
from cluster.sockets import HEARTBEAT_TIMEOUT_MS
from tests.cluster.steps import logits
from tests.cluster.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]

TOKENS = [5, 6, 7]


def encrypting(home: Path) -> dict[str, object]:
    return {"home": str(home), "encrypts_loopback": True}


def test_encrypted_links_bring_the_same_bits(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    plain = make_runner([start_worker(), start_worker()])
    plain.start()
    workers = [start_worker(security=encrypting(tmp_path / f"worker{i}")) for i in range(2)]
    security = Security(home=tmp_path / "root", encrypts_loopback=True)
    encrypted = make_runner(workers, security=security)
    encrypted.start()
    assert (logits(encrypted, TOKENS) == logits(plain, TOKENS)).all()
    key_file = tmp_path / "root" / "node_key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    nodes = (tmp_path / "root" / "known_nodes").read_text()
    assert all(str(worker.address) in nodes for worker in workers)
    assert "127.0.0.1" in (tmp_path / "worker0" / "known_roots").read_text()
    encrypted.close()
    encrypted = make_runner(workers, security=security)
    encrypted.start()


def test_an_idle_encrypted_cluster_stays(
    start_worker: StartWorker,
    make_runner: MakeRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pings travel encrypted too: nobody on the way takes them for messages that nobody reads. The
    root pings ten times as often as it does, so that they are many soon."""
    monkeypatch.setattr(sockets, "HEARTBEAT_MS", 100)
    worker = start_worker(security=encrypting(tmp_path / "worker"))
    runner = make_runner(
        [worker], security=Security(home=tmp_path / "root", encrypts_loopback=True)
    )
    runner.start()
    before = logits(runner, TOKENS)
    until = time.monotonic() + (2 * MAX_UNREAD * 100 + HEARTBEAT_TIMEOUT_MS) * 1e-3 + 0.5
    while time.monotonic() < until:
        runner.idle()
        time.sleep(0.2)
    assert (logits(runner, TOKENS) == before).all()
