"""Nodes that are not of the same release: pretended ones, and what a true one makes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgpack
import numpy as np
import pytest
import zmq

from cluster.mesh.sync_type import SyncType
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.security.cluster_key import new_cluster_key
from cluster.security.settings import Security
from cluster.sockets import Address, endpoint
from cluster.wire.codec import PROTOCOL_VERSION
from cluster.wire.messages import Admitted, Introduced, pack
from dllama import __version__
from dllama.errors import ClusterError, ProtocolError
from kernels.matmul.sums import Kind
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.steps import idle_until_lost, logits, recover
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_worker_port

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


@pytest.mark.parametrize(("version", "release"), [(3, "0.0.1"), (99, "9.9.9")])
def test_a_worker_of_another_protocol_is_named_with_both(version: int, release: str) -> None:
    """It answers whatever it is told with its own Welcome, as every daemon so far does."""
    context = zmq.Context()
    daemon = context.socket(zmq.ROUTER)
    port = daemon.bind_to_random_port("tcp://127.0.0.1")
    daemon.rcvtimeo = 20_000
    welcome = {"v": version, "e": 0, "k": "Welcome", "a": [], "release": release, "news": [1]}

    def answer() -> None:
        identity, *_ = daemon.recv_multipart()
        daemon.send_multipart([identity, msgpack.packb(welcome)])

    thread = threading.Thread(target=answer)
    thread.start()
    config = ClusterConfig([Address("127.0.0.1", port)], 8, 64, 1, hello_timeout_s=20.0)
    runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
    try:
        with pytest.raises(ProtocolError) as error:
            runner.start()
    finally:
        runner.close()
        thread.join()
        context.destroy(linger=0)
    said = str(error.value)
    for word in (
        f"worker 127.0.0.1:{port}", f"protocol {version} (dllama {release})",
        f"speaks {PROTOCOL_VERSION} (dllama {__version__})", "install the same dllama",
    ):  # fmt: skip
        assert word in said


def test_a_root_of_another_protocol_learns_both_from_the_answer(start_worker: StartWorker) -> None:
    worker = start_worker()
    hello = {"v": 99, "e": 0, "k": "Introduction2", "a": [], "release": "9.9", "news": [1]}
    context = zmq.Context()
    link = context.socket(zmq.DEALER)
    link.rcvtimeo = 10_000
    link.connect(endpoint(worker.address.host, worker.address.port))
    link.send(msgpack.packb(hello))
    head = msgpack.unpackb(link.recv())
    context.destroy(linger=0)
    assert (head["v"], head["release"]) == (PROTOCOL_VERSION, __version__)
    worker.await_line("protocol 99 (dllama 9.9)")


def test_a_worker_that_lacks_a_feature_goes_on_without_it(
    start_worker: StartWorker, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    older = start_worker(release="0.0.9", features=["sync-f32"])
    newer = start_worker(features=["sync-f32", "sync-q80", "mind-reading"])
    runner = make_runner([older, newer], sync_type=SyncType.Q80)
    runner.start()
    assert "(dllama 0.0.9) cannot exchange partial sums as q80; they travel as f32" in caplog.text
    plain = make_runner([start_worker(), start_worker()], sync_type=SyncType.F32)
    plain.start()
    assert (logits(runner, [5, 6, 7]) == logits(plain, [5, 6, 7])).all()


def test_the_root_makes_the_sums_that_all_workers_can_make(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """A worker that cannot make exact sums comes and goes: the root's own rank follows."""
    newer, older = start_worker(), start_worker(release="0.0.9", features=["sync-f32"])
    plain = make_runner([start_worker(), start_worker()], sync_type=SyncType.F32)
    plain.start()
    wanted = logits(plain, [5, 6, 7])
    plain.close()
    runner = make_runner([newer, older], rejoin_s=0.0)
    runner.start()
    assert (logits(runner, [5, 6, 7]) == wanted).all()
    own = runner._opener.own
    assert own is not None and own.kind is Kind.PLAIN
    older.process.kill()
    idle_until_lost(runner)
    recover(runner)
    kept = runner._opener.own
    assert kept is not None and kept.kind is Kind.FIXED and own.rank.is_closed  # type: ignore[attr-defined]
    exact = make_runner([start_worker()])
    exact.start()
    assert (logits(runner, [5, 6, 7]) == logits(exact, [5, 6, 7])).all()


def test_a_kept_rank_makes_the_next_sessions_kind_of_sums(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """The same shard and pages, but a worker of another release on the same port."""
    worker = start_worker(port=own_worker_port())
    runner = make_runner([worker], rejoin_s=30.0)
    runner.start()
    assert runner._opener.own is not None and runner._opener.own.kind is Kind.FIXED
    worker.end()
    idle_until_lost(runner)
    start_worker(port=worker.address.port, features=["sync-f32"])
    recover(runner)
    assert runner._opener.own.kind is Kind.PLAIN
    assert np.isfinite(logits(runner, [5, 6, 7])).all()


def test_a_worker_that_replays_what_it_once_heard_is_found_out() -> None:
    """Somebody who answers with another conversation's words, and then says nothing or anything."""
    context = zmq.Context()
    daemon = context.socket(zmq.ROUTER)
    port = daemon.bind_to_random_port("tcp://127.0.0.1")
    daemon.rcvtimeo = 20_000
    key = new_cluster_key()
    old = Introduced(__version__, [], "", "n", "another nonce", True, False, 0, "a proof")

    def answer() -> None:
        for said in (old, Admitted()):
            identity, *_ = daemon.recv_multipart()
            daemon.send_multipart([identity, *pack(said)])

    thread = threading.Thread(target=answer)
    thread.start()
    security = Security(cluster_key=key)
    config = ClusterConfig([Address("127.0.0.1", port)], 8, 64, 1, security=security)
    runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
    try:
        with pytest.raises(ClusterError, match="answered an earlier hello and not this one"):
            runner.start()
    finally:
        runner.close()
        thread.join()
        context.destroy(linger=0)
