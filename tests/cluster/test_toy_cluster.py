"""Real models on real ranks: n nodes compute what one computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cluster.mesh.sync_type import SyncType
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.thread_collective import ThreadCollective, ThreadGroup
from cluster.worker.launcher import SESSION_COMMAND
from dllama.collective import Addend, Collective, ImmediateSums, SoloCollective
from dllama.formats import open_model
from dllama.kv_type import KvType
from dllama.nodes import NodesAction
from dllama.qtypes import QType
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.graph import Replay
from dllama.runtime.rank import RankModel
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_for
from dllama.sharding.units import units_of
from dllama.step import LogitRow, Step
from dllama.weight_source import WeightSource
from tests.cluster.steps import prefill
from tests.cluster.test_nodes_by_hand import call
from tests.cluster.worker_process import WorkerProcess
from tests.toy_models import write_toy

N_PAGES, MAX_STEP_TOKENS = 8, 64
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]

TOYS: dict[str, dict[str, object]] = {
    "llama-f32": {"arch": "llama", "qtype": QType.F32, "hidden_dim": 172},
    "qwen3-tied-q8": {"arch": "qwen3", "qtype": QType.Q8_0, "tied": True, "n_kv_heads": 4},
    "qwen2-q4": {"arch": "qwen2", "qtype": QType.Q4_0, "dim": 128, "hidden_dim": 256},
}


class Recorded(ImmediateSums):
    """A Collective that keeps every sum it handed out."""

    def __init__(self, inner: Collective) -> None:
        self._inner = inner
        self.sums: list[bytes] = []

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        self._inner.all_reduce(x, out)
        self.sums.append(out.tobytes())

    def gather(self, part: bytes) -> list[bytes] | None:
        return self._inner.gather(part)


def load(
    source: WeightSource, shares: list[float], kv_type: KvType = KvType.F16
) -> list[RankModel]:
    shards = plan_for(source.config, source.tensors, shares)
    return [
        RankModel.load(
            source.config,
            cut_tensors(source, shard),
            n_pages=N_PAGES,
            max_step_tokens=MAX_STEP_TOKENS,
            n_threads=1,
            vocab_start=shard.vocab.start,
            embed_qtype=source.tensors["embed"].qtype,
            units=units_of(source.config, source.tensors),
            kind=SyncType.EXACT.kind(len(shares)),
            kv_type=kv_type,
        )
        for shard in shards
    ]


def steps() -> list[Step]:
    """A prompt, then two more tokens, the last with candidates."""
    n = len(TOKENS)
    return [
        prefill(TOKENS),
        prefill([7], start=n),
        prefill([8], start=n + 1, candidates=20),
    ]


@pytest.fixture(params=list(TOYS))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WeightSource]:
    opened = open_model(write_toy(tmp_path / "toy.gguf", **TOYS[request.param]))  # type: ignore[arg-type]
    yield opened
    opened.close()


def run_solo(source: WeightSource, kv_type: KvType = KvType.F16) -> list[LogitRow]:
    (rank,) = load(source, [1.0], kv_type)
    embedding = EmbeddingTable(source)
    rows = []
    for step in steps():
        answer = rank.forward(step, embedding.rows(step.tokens), SoloCollective())
        assert answer is not None
        rows += answer
    rank.close()
    return rows


def assert_equal_rows(got: list[LogitRow], want: list[LogitRow]) -> None:
    """Bit by bit."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a.logits, b.logits) and a.log_sum_exp == b.log_sum_exp
        assert (a.ids is None) == (b.ids is None)
        assert a.ids is None or b.ids is None or np.array_equal(a.ids, b.ids)


@pytest.mark.parametrize("shares", [[1, 1], [3, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1, 1]], ids=str)
def test_ranks_agree_with_solo_and_bit_by_bit_with_each_other(
    source: WeightSource, shares: list[float]
) -> None:
    """More ranks than KV heads, uneven ones, and a hidden size of no multiple of 32 included."""
    ranks = load(source, shares)
    group = ThreadGroup(len(ranks))
    comms = [Recorded(ThreadCollective(group, r)) for r in range(len(ranks))]
    embedding = EmbeddingTable(source)
    rows: list[LogitRow] = []

    def forward(rank: int, step: Step) -> list[LogitRow] | None:
        try:
            embed_rows = embedding.rows(step.tokens)
            return ranks[rank].forward(step, embed_rows, comms[rank])
        except BaseException:
            group.leave()
            raise

    with ThreadPoolExecutor(len(ranks)) as pool:
        for step in steps():
            first, *others = pool.map(lambda r, s=step: forward(r, s), range(len(ranks)))
            assert first is not None and not any(others)
            rows += first
    for rank in ranks:
        rank.close()
    assert all(c.sums == comms[0].sums for c in comms)
    assert_equal_rows(rows, run_solo(source))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_cluster_of_processes_agrees_with_solo(
    source: WeightSource, start_worker: Callable[..., WorkerProcess], n_workers: int
) -> None:
    workers = [start_worker(session_command=SESSION_COMMAND) for _ in range(n_workers)]
    shares = [float(3 - r % 3) for r in range(n_workers + 1)]
    config = ClusterConfig(
        [w.address for w in workers], N_PAGES, MAX_STEP_TOKENS, threads=1, shares=shares
    )
    runner = ClusterRunner(source, config, RankModel.load)
    try:
        runner.start()
        rows = [row for step in steps() for row in runner.run(step)]
    finally:
        runner.close()
    assert_equal_rows(rows, run_solo(source))


@pytest.mark.timeout(400)
def test_the_type_of_kv_pages_reaches_every_rank(
    tmp_path: Path, start_worker: Callable[..., WorkerProcess]
) -> None:
    with closing(open_model(write_toy(tmp_path / "toy.gguf", qtype=QType.F32))) as source:
        worker = start_worker(session_command=SESSION_COMMAND)
        config = ClusterConfig(
            [worker.address], N_PAGES, MAX_STEP_TOKENS, threads=1, kv_type=KvType.Q8_0
        )
        runner = ClusterRunner(source, config, RankModel.load)
        try:
            runner.start()
            rows = [row for step in steps() for row in runner.run(step)]
        finally:
            runner.close()
        assert_equal_rows(rows, run_solo(source, KvType.Q8_0))
        halves = run_solo(source, KvType.F16)
    assert np.abs(rows[0].logits - halves[0].logits).max() > 3e-4  # it would show


def test_a_root_that_is_left_alone_replays_its_steps(
    tmp_path: Path, start_worker: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program for all steps of a shape, not one for each step."""
    made, whole = [], Replay.__init__

    def counted(self: Replay, *args: object) -> None:
        made.append(self)
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Replay, "__init__", counted)
    worker = start_worker(session_command=SESSION_COMMAND)
    with closing(open_model(write_toy(tmp_path / "toy.gguf", qtype=QType.F32))) as source:
        config = ClusterConfig([worker.address], N_PAGES, MAX_STEP_TOKENS, threads=1)
        with closing(ClusterRunner(source, config, RankModel.load)) as runner:
            runner.start()
            removed = call(runner, NodesAction.REMOVE, str(worker.address))
            assert [row.rank for row in removed.nodes] == [0]
            made.clear()
            for position in range(6):
                runner.run(prefill([7], start=position))
    assert len(made) <= 1
