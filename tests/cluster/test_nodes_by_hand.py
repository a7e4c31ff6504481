"""A cluster's nodes are added and removed by hand: real daemons on loopback, which may refuse."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from cluster.root.fitting import Fitting
from cluster.root.runner import ClusterRunner
from cluster.security.cluster_key import new_cluster_key
from dllama.errors import PeerLost
from dllama.nodes import NodesAction, NodesCall, NodesReply
from dllama.sharding.plan import Shard
from tests.cluster.steps import idle_until_lost, logits, recover
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_port

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(500)]

PATIENCE_S = 60.0  # this machine may be busy
TOKENS = [5, 6, 7]


def call(
    runner: ClusterRunner, action: NodesAction, address: str, share: float = 1.0
) -> NodesReply:
    """Calls between steps, as EngineLoop does, until there is a reply."""
    reply = runner.nodes(NodesCall("call", action, address, share))
    deadline = time.monotonic() + PATIENCE_S
    while reply is None:
        assert time.monotonic() < deadline, "there is no reply"
        if runner.pending_change is not None:
            recover(runner)
        logits(runner, TOKENS)
        replies = runner.node_replies()
        reply = replies[0] if replies else None
    assert reply.id == "call"
    return reply


def rows(reply: NodesReply) -> list[tuple[str, int | None, float]]:
    assert reply.error is None, reply.error
    return [(row.state, row.rank, row.share) for row in reply.nodes]


def test_a_node_joins_and_another_leaves(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    first, second = start_worker(), start_worker()
    runner = make_runner([first])
    runner.start()
    before = logits(runner, TOKENS)
    added = rows(call(runner, NodesAction.ADD, str(second.address), 2.0))
    assert added in (
        [("present", 0, 1.0), ("present", 1, 1.0), ("joining", None, 2.0)],
        [("present", 0, 1.0), ("present", 1, 1.0), ("present", 2, 2.0)],
    )
    if runner.pending_change is not None:
        recover(runner)
    listed = call(runner, NodesAction.LIST, "")
    assert [row.rank for row in listed.nodes] == [0, 1, 2]
    assert all(row.rss_bytes and row.memory_bytes for row in listed.nodes)
    assert sum(row.kv_heads for row in listed.nodes) == runner.config.n_kv_heads
    assert sum(row.hidden for row in listed.nodes) == runner.config.hidden_dim
    removed = call(runner, NodesAction.REMOVE, str(first.address))
    assert rows(removed) == [("present", 0, 1.0), ("present", 1, 2.0)]
    assert abs(logits(runner, TOKENS) - before).max() < 1e-5
    assert first.process.poll() is None, "its daemon is there for others"


def test_a_node_that_is_waited_for_can_be_removed(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """The root would wait for a long time, and goes on at once; the one that is there stays."""
    kept, lost = start_worker(), start_worker()
    runner = make_runner([kept, lost], rejoin_s=600.0)
    runner.start()
    before = logits(runner, TOKENS)
    lost.end(signal.SIGKILL)
    idle_until_lost(runner)
    with pytest.raises(PeerLost, match="is waited for"):
        runner.recover()
    refused = runner.nodes(NodesCall("1", NodesAction.REMOVE, str(kept.address)))
    assert refused is not None and "ask again in a moment" in (refused.error or "")
    assert runner.nodes(NodesCall("2", NodesAction.REMOVE, str(lost.address))) is None
    (reply,) = runner.node_replies()
    assert reply.error is None
    assert [row.address for row in reply.nodes][1:] == [str(kept.address)]
    recover(runner)
    assert rows(call(runner, NodesAction.LIST, "")) == [("present", 0, 1.0), ("present", 1, 1.0)]
    assert abs(logits(runner, TOKENS) - before).max() < 1e-5


def test_the_root_is_no_worker(start_worker: StartWorker, make_runner: MakeRunner) -> None:
    runner = make_runner([start_worker()])
    runner.start()
    root = call(runner, NodesAction.LIST, "").nodes[0].address
    reply = call(runner, NodesAction.REMOVE, root)
    assert f"{root} is the root" in (reply.error or "")


def test_what_cannot_be_used_is_refused_with_its_reason(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    worker = start_worker()
    locked = start_worker(security={"cluster_key": new_cluster_key().text()})
    runner = make_runner([worker])
    runner.start()
    for address, said in (
        (f"127.0.0.1:{own_port()}", "was not added"),
        ("no-such-host.invalid", "was not added"),
        (str(locked.address), "key"),
        (f"localhost:{worker.address.port}", f"the same worker as {worker.address}"),
        (str(worker.address), "known already"),
    ):
        reply = call(runner, NodesAction.ADD, address)
        assert reply.error is not None and said in reply.error, reply
        assert len(call(runner, NodesAction.LIST, "").nodes) == 2
    assert runner.pending_change is None


def test_a_node_without_the_memory_is_refused_with_figures(
    start_worker: StartWorker, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank of three needs more than any machine has."""

    def needed(self: Fitting, shard: Shard, n_pages: int) -> int:
        return 1 << 50 if shard.world_size == 3 else 1 << 10

    monkeypatch.setattr(Fitting, "needed", needed)
    worker, small = start_worker(), start_worker()
    runner = make_runner([worker])
    runner.start()
    reply = call(runner, NodesAction.ADD, str(small.address))
    assert reply.error is not None and "1125" in reply.error, reply
    assert len(call(runner, NodesAction.LIST, "").nodes) == 2
    assert runner.pending_change is None


def test_a_node_that_is_needed_is_not_removed(
    start_worker: StartWorker, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 40]
    monkeypatch.setattr("cluster.root.runner.available_memory", lambda: free[0])
    worker = start_worker()
    runner = make_runner([worker])
    runner.start()
    call(runner, NodesAction.LIST, "")
    free[0] = 0  # what the root's rank holds is all that it can have
    reply = call(runner, NodesAction.REMOVE, str(worker.address))
    assert reply.error is not None
    assert f"{worker.address} is needed" in reply.error and "the root" in reply.error
    assert runner.pending_change is None
    free[0] = 1 << 40
    assert rows(call(runner, NodesAction.REMOVE, str(worker.address))) == [("present", 0, 1.0)]


def test_a_second_name_of_a_worker_that_is_added_while_another_is_waited_for_is_left_out(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    kept, lost = start_worker(), start_worker()
    runner = make_runner([kept, lost], rejoin_s=1.0)
    runner.start()
    before = logits(runner, TOKENS)
    lost.end(signal.SIGKILL)
    idle_until_lost(runner)
    name = f"localhost:{kept.address.port}"
    assert runner.nodes(NodesCall("1", NodesAction.ADD, name)) is None
    recover(runner)
    replies: list[NodesReply] = []
    deadline = time.monotonic() + PATIENCE_S
    while not replies and time.monotonic() < deadline:
        logits(runner, TOKENS)
        replies = runner.node_replies()
    assert "the same worker as" in (replies[0].error or "")
    assert abs(logits(runner, TOKENS) - before).max() < 1e-5
