"""Attacks on real sockets of real processes, each a row of the table: what was sent, what became of
the process, and whether others were served meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psutil
import zmq

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.wire import messages as node_messages
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.fuzz.floods import (
    flood,
    hostile_mesh_frames,
    hostile_messages,
    on_loopback,
    raw_flood,
    raw_streams,
)
from tests.cluster.fuzz.honest import Honest, hello, listening, step
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.worker_process import WorkerProcess

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. Memory is that of the process that was attacked."""

    socket: str
    n_frames: int
    n_crashes: int
    n_hangs: int
    before_mb: int
    after_mb: int
    served: int  # times that somebody honest was, meanwhile
    worst_s: float
    why: str = ""


@contextmanager
def toy_cluster() -> Iterator[tuple[WorkerProcess, ClusterRunner]]:
    """A worker and a root in this process, with a session that computes."""
    worker = WorkerProcess()
    try:
        config = ClusterConfig([worker.address], n_pages=8, max_step_tokens=64, threads=1)
        runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
        with closing(runner):
            runner.start()
            yield worker, runner
    finally:
        worker.end()


def attack_daemon(worker: WorkerProcess, n: int, rng: random.Random, limit_s: float) -> list[Row]:
    """Messages and raw connections to a daemon's port."""
    daemon = psutil.Process(worker.process.pid)
    rows = []
    for name, share in (("daemon, messages", 0.9), ("daemon, raw connections", 0.1)):
        honest, before = Honest(hello(worker.address)), daemon.memory_info().rss
        if "raw" in name:
            ports = [worker.address.port]
            n_sent = raw_flood(ports, raw_streams(rng), int(n * share), honest, limit_s)
        else:
            frames = hostile_messages(node_messages.CODEC, rng)
            where = on_loopback([worker.address.port])
            n_sent = flood(where, zmq.DEALER, frames, int(n * share), honest, limit_s)
        rows.append(attacked(name, n_sent, daemon, before, honest))
    return rows


def attack_session(
    worker: WorkerProcess, runner: ClusterRunner, n: int, rng: random.Random, limit_s: float
) -> list[Row]:
    """Strangers' frames to the ports of a session that computes: its control socket and its mesh
    inbox, and the mesh inbox of the root."""
    session, here = worker.sessions()[0], psutil.Process()
    rows = []
    ports = listening(session)
    for name, process, kind, where in (
        ("session, messages", session, zmq.DEALER, ports),
        ("session, mesh frames", session, zmq.PUSH, ports),
        ("root, mesh frames", here, zmq.PUSH, listening(here)),
        ("session, raw connections", session, 0, ports),
    ):
        honest, before = Honest(step(runner)), process.memory_info().rss
        if kind == zmq.DEALER:
            frames = hostile_messages(node_messages.CODEC, rng)
        else:
            frames = hostile_mesh_frames(rng, 2)
        if kind:
            assert runner._session is not None
            epoch = runner._session.epoch  # without it none of them would be taken
            n_sent = flood(on_loopback(where), kind, frames, n // 4, honest, limit_s, epoch)
        else:
            n_sent = raw_flood(where, raw_streams(rng), n // 16, honest, limit_s)
        rows.append(attacked(name, n_sent, process, before, honest))
    return rows


def attacked(name: str, n: int, process: psutil.Process, before: int, honest: Honest) -> Row:
    is_alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    after = process.memory_info().rss if is_alive else 0
    return Row(
        name,
        n,
        int(not is_alive),
        int(bool(honest.failure) and is_alive),
        before // MB,
        after // MB,
        honest.n_served,
        honest.worst_s,
        honest.failure,
    )
