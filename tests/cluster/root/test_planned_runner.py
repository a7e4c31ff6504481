"""A cluster that plans by itself, of real daemons and ranks in numpy: a model of a few kilobytes is
always faster on one machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.root import measuring
from cluster.root.members import State
from cluster.root.runner import ClusterRunner
from dllama.nodes import NodeRow, NodesAction, NodesCall
from tests.cluster.steps import prefill
from tests.cluster.worker_process import WorkerProcess

Start = Callable[..., WorkerProcess]
Make = Callable[..., ClusterRunner]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_BYTES", 4 << 20)


def nodes_of(runner: ClusterRunner) -> list[NodeRow]:
    reply = runner.nodes(NodesCall("1", NodesAction.LIST))
    assert reply is not None
    return reply.nodes


def test_a_worker_that_slows_a_small_model_down_is_left_out_and_told(
    no_leaks: None, start_worker: Start, make_runner: Make
) -> None:
    worker = start_worker()
    runner = make_runner([worker], plans=True, hello_timeout_s=120.0)
    runner.start()
    root, other = nodes_of(runner)
    assert root.rank == 0 and other.rank is None
    assert other.state == State.LEFT_OUT and "--use-all takes it all the same" in other.reason
    worker.await_no_session()
    assert len(runner.run(prefill([1, 2, 3]))) == 1
    runner.close()


def test_all_are_used_on_request_with_planned_shares(
    start_worker: Start, make_runner: Make
) -> None:
    worker = start_worker()
    runner = make_runner([worker], plans=True, uses_all=True, hello_timeout_s=120.0)
    runner.start()
    root, other = nodes_of(runner)
    assert (root.rank, other.rank) == (0, 1) and other.state == State.PRESENT
    assert root.hidden + other.hidden == runner.config.hidden_dim and other.hidden > 0
    assert len(runner.run(prefill([1, 2, 3]))) == 1
    runner.close()


def test_stats_show_what_was_predicted_and_what_costs(
    start_worker: Start, make_runner: Make
) -> None:
    runner = make_runner([start_worker()], plans=True, uses_all=True, hello_timeout_s=120.0)
    runner.start()
    for row in runner.stats():
        predicted = row["predicted"]
        assert isinstance(predicted, dict)
        assert all(predicted[name] > 0 for name in ("tokens_per_s", "compute_ms", "network_ms"))
        assert row["finding"] == ""  # nothing was decoded
    runner.close()


def test_stats_of_given_shares_predict_nothing(start_worker: Start, make_runner: Make) -> None:
    runner = make_runner([start_worker()])
    runner.start()
    assert [row["predicted"] for row in runner.stats()] == [None, None]
    runner.close()
