"""A cluster of real processes over loopback, with a model of a few lines of numpy."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.mesh.sync_type import SyncType
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from dllama.collective import SoloCollective
from dllama.errors import ClusterError, ConfigError, PeerLost
from dllama.qtypes import QType
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_shards
from dllama.sharding.units import sum_units
from kernels.matmul.sums import Kind
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import LOAD_FAILS_AT_PAGES, NumpyRank, load_numpy_rank
from tests.cluster.steps import logits, prefill, recover
from tests.cluster.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]

TOKENS = [5, 6, 7]


def solo_logits(tokens: list[int]) -> np.ndarray:
    """What one node computes."""
    source = ArraySource(small_config())
    (shard,) = plan_shards(source.config, [1.0])
    rank = load_numpy_rank(
        source.config,
        cut_tensors(source, shard),
        n_pages=1,
        max_step_tokens=64,
        n_threads=1,
        vocab_start=0,
        embed_qtype=QType.F32,
        units=sum_units(source.config),
        kind=Kind.ROUNDED,
        progress=None,
    )
    rows = rank.forward(prefill(tokens), source.read("embed")[tokens], SoloCollective())
    assert rows is not None
    return rows[0].logits


def test_a_cluster_computes_what_one_node_does_and_says_how(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    workers = [start_worker() for _ in range(3)]
    runner = make_runner(workers, shares=[3, 2, 2, 1])
    runner.start()
    for tokens in (TOKENS, [1], list(range(60))):
        assert np.abs(logits(runner, tokens) - solo_logits(tokens)).max() < 1e-5
    runner.idle()
    rows = runner.stats()
    assert [row["rank"] for row in rows] == [0, 1, 2, 3]
    assert [row["host"] for row in rows[1:]] == [str(w.address) for w in workers]
    for row in rows:
        assert row["threads"] == 1 and row["tokens_per_s"] > 0 and row["rss_bytes"] > 1 << 20  # type: ignore[operator]
        assert row["sent_bytes"] > 0 and row["received_bytes"] > 0 and row["compute_ms"] > 0  # type: ignore[operator]
        assert row.keys() >= {"wait_ms", "network_ms", "weights_gb_per_s"}
    assert sum(row["shard"]["hidden"] for row in rows) == 96  # type: ignore[index]
    assert sum(row["shard"]["kv_heads"] for row in rows) == 4  # type: ignore[index]
    assert runner.counters().keys() == {"compute_ns", "wait_ns", "network_ns"}
    source = ArraySource(small_config())
    cut = sum(t.n_bytes for n, t in source.tensors.items() if n not in ("embed",))
    assert runner.weight_bytes >= cut


SPEEDS = ("tokens_per_s", "prefill_tokens_per_s", "compute_ms", "weights_gb_per_s")


def speeds(runner: ClusterRunner) -> list[list[object]]:
    return [[row[name] for name in SPEEDS] for row in runner.stats()]


def test_no_rank_has_a_speed_before_its_first_step(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """Steps that warm the ranks up are not counted; and after a loss all ranks begin anew."""
    workers = [start_worker() for _ in range(2)]
    runner = make_runner(workers)
    runner.start()
    assert speeds(runner) == [[0.0] * 4] * 3
    logits(runner, [1])
    assert all(row[0] > 0 and row[1] == 0 for row in speeds(runner))  # type: ignore[operator]
    spent = runner.counters()
    workers[0].kill_session(signal.SIGKILL)
    with pytest.raises(PeerLost):
        while True:
            runner.idle()
    recover(runner)
    assert speeds(runner) == [[0.0] * 4] * 3
    assert runner.counters() == spent, "what was spent stays"
    logits(runner, [1])
    assert all(row[0] > 0 for row in speeds(runner))  # type: ignore[operator]


def test_workers_wait_for_the_next_root_when_one_leaves(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    workers = [start_worker()]
    for _ in range(2):
        runner = make_runner(workers, sync_type=SyncType.Q80)
        runner.start()
        assert np.abs(logits(runner, TOKENS) - solo_logits(TOKENS)).max() < 0.1
        runner.close()
        workers[0].await_no_session()
    assert workers[0].output.count("session of rank 1 ended: the root closed it") >= 1


def test_a_worker_serves_two_roots_at_once(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    workers = [start_worker(), start_worker()]
    runners = [make_runner(workers[:2]), make_runner(workers[1:])]
    for runner in runners:
        runner.start()
    assert len(workers[1].sessions()) == 2
    for runner in runners * 2:
        assert np.abs(logits(runner, TOKENS) - solo_logits(TOKENS)).max() < 1e-5


def test_a_worker_that_does_not_answer_is_named(make_runner: MakeRunner) -> None:
    silent = Address("127.0.0.1", 9)
    config = ClusterConfig([silent], 8, 64, 1, hello_timeout_s=0.5)
    runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
    with pytest.raises(PeerLost, match=r"127\.0\.0\.1:9 .*did not answer .*dllama-worker") as lost:
        runner.start()
    assert (lost.value.rank, lost.value.host) == (1, "127.0.0.1:9")
    runner.close()


def test_another_release_of_the_same_protocol_is_told_and_goes_on(
    start_worker: StartWorker, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker(release="0.0.9")
    runner = make_runner([worker], release="0.1.7")
    runner.start()
    assert "runs dllama 0.0.9 and this root 0.1.7" in caplog.text
    assert "runs dllama '0.1.7' and this worker '0.0.9'" in worker.output
    assert np.abs(logits(runner, TOKENS) - solo_logits(TOKENS)).max() < 1e-5


def test_shares_that_do_not_fit_are_said(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    with pytest.raises(ConfigError, match="names 3 nodes and there are 2"):
        make_runner([start_worker()], shares=[1, 1, 1]).start()


def test_a_model_that_does_not_fit_is_refused_before_loading(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    with pytest.raises(ConfigError, match=r"does not fit .* needs \d+.* GB and has"):
        make_runner([worker], n_pages=1 << 40).start()
    assert not worker.sessions()


def test_why_a_worker_failed_to_load_reaches_the_root(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    with pytest.raises(PeerLost, match=r"ran out of memory .no room for the KV pages"):
        make_runner([worker], n_pages=LOAD_FAILS_AT_PAGES).start()
    worker.await_no_session()
    make_runner([worker]).start()


def test_the_roots_rank_outlives_workers_that_are_lost_while_they_load(
    start_worker: StartWorker,
) -> None:
    worker, made = start_worker(), list[NumpyRank]()

    def load_once(*args: Any, **settings: Any) -> NumpyRank:
        made.append(load_numpy_rank(*args, **settings))
        worker.kill_session(signal.SIGKILL)
        return made[-1]

    config = ClusterConfig([worker.address], 8, 64, 1)
    runner = ClusterRunner(ArraySource(small_config()), config, load_once)
    try:
        with pytest.raises(PeerLost):
            runner.start()
        worker.await_no_session()
        runner.start()
        assert len(made) == 1
    finally:
        runner.close()
    assert made[0].is_closed


def test_a_session_that_cannot_start_is_told(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker(session_command=["false"])
    with pytest.raises(PeerLost, match="ended its session: its process ended with code 1"):
        make_runner([worker]).start()
    broken = start_worker(session_command=["/no/such/program"])
    with pytest.raises(ClusterError, match=r"could not start a process: .*No such file"):
        make_runner([broken]).start()


def test_a_root_alone_is_no_cluster() -> None:
    config = ClusterConfig([], 8, 64, 1)
    with pytest.raises(ConfigError, match="at least one worker"):
        ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
