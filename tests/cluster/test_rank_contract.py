"""One contract, two Ranks: the model with its kernels, and the few lines of numpy that stand for it
in tests of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.rank import LoadRank, Rank
from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import SoloCollective
from dllama.errors import SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.qtypes import QType
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.rank import RankModel
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_for
from dllama.sharding.units import units_of
from dllama.step import LogitRow, Step
from kernels.matmul.sums import Kind
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.steps import prefill

CONFIG = small_config()
TOKENS = [5, 17, 99, 0, 42]
MARK, OTHER_MARK = bytes(range(32)), bytes(32)
HELD = KvHeld.of([0, 1])

pytestmark = pytest.mark.timeout(600)


def tick() -> None:
    pass


class RanksOfThreads:
    """All ranks of one model in this process."""

    def __init__(self, load: LoadRank, world_size: int) -> None:
        source = ArraySource(CONFIG)
        self._embedding = EmbeddingTable(source)
        self.progress = [np.zeros(64, np.int64) for _ in range(world_size)]
        self.ranks: list[Rank] = [
            load(
                CONFIG,
                cut_tensors(source, shard),
                n_pages=8,
                max_step_tokens=64,
                n_threads=1,
                vocab_start=shard.vocab.start,
                embed_qtype=QType.F32,
                units=units_of(CONFIG, source.tensors),
                kind=Kind.FIXED if world_size > 1 else Kind.ROUNDED,
                kv_type=KvType.F16,
                progress=progress,
            )
            for shard, progress in zip(
                plan_for(CONFIG, source.tensors, [1.0] * world_size), self.progress, strict=True
            )
        ]

    def forward(self, step: Step) -> list[list[LogitRow] | None]:
        """What every rank returns for a step."""
        rows = self._embedding.rows(step.tokens)
        if len(self.ranks) == 1:
            return [self.ranks[0].forward(step, rows, SoloCollective())]
        group = ThreadGroup(len(self.ranks))
        with ThreadPoolExecutor(len(self.ranks)) as pool:
            running = [
                pool.submit(rank.forward, step, rows, ThreadCollective(group, r))
                for r, rank in enumerate(self.ranks)
            ]
            return [each.result(120) for each in running]

    def close(self) -> None:
        for rank in self.ranks:
            rank.close()


MakeRanks = Callable[[int], RanksOfThreads]


@pytest.fixture(params=[RankModel.load, load_numpy_rank], ids=["kernels", "numpy"])
def make_ranks(request: pytest.FixtureRequest) -> Iterator[MakeRanks]:
    made: list[RanksOfThreads] = []

    def make(world_size: int) -> RanksOfThreads:
        made.append(RanksOfThreads(request.param, world_size))
        return made[-1]

    yield make
    for ranks in made:
        ranks.close()


def whole_rows(step: Step) -> Step:
    """The same step, with the logits of every row, whole."""
    everywhere = np.arange(step.n_tokens, dtype=np.int32)
    return replace(step, logits_at=everywhere, candidates=np.zeros_like(everywhere))


def test_rank_0_returns_a_row_for_each_that_is_asked_for(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(1)
    [rows] = ranks.forward(whole_rows(prefill(TOKENS)))
    assert rows is not None and len(rows) == len(TOKENS)
    for row in rows:
        assert row.ids is None and row.logits.shape == (CONFIG.vocab_size,)
        assert row.log_sum_exp == pytest.approx(float(np.logaddexp.reduce(row.logits)), abs=1e-4)
    no_rows = np.zeros(0, np.int32)
    [none] = ranks.forward(replace(prefill(TOKENS), logits_at=no_rows, candidates=no_rows))
    assert none == []


def test_other_ranks_return_none_and_all_agree_with_one(make_ranks: MakeRanks) -> None:
    step = whole_rows(prefill(TOKENS))
    [alone] = make_ranks(1).forward(step)
    together, *others = make_ranks(2).forward(step)
    assert alone is not None and together is not None and others == [None]
    for one, two in zip(alone, together, strict=True):
        assert np.abs(one.logits - two.logits).max() < 1e-3
        assert one.log_sum_exp == pytest.approx(two.log_sum_exp, abs=1e-3)


def test_candidates_are_the_largest_of_the_whole_row(make_ranks: MakeRanks) -> None:
    """A rank may send more than is asked for, never less."""
    ranks = make_ranks(1)
    [whole] = ranks.forward(prefill(TOKENS))
    [few] = ranks.forward(prefill(TOKENS, candidates=3))
    assert whole is not None and few is not None
    logits, row = whole[0].logits, few[0]
    best = np.argsort(-logits, kind="stable")[:3]
    if row.ids is None:
        assert np.array_equal(row.logits, logits)
    else:
        assert row.ids.tolist() == best.tolist()
        assert np.array_equal(row.logits, logits[best])
    assert row.log_sum_exp == pytest.approx(whole[0].log_sum_exp, abs=1e-4)


def test_the_same_step_gives_the_same_bits(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(1)
    [[first]] = ranks.forward(prefill(TOKENS))  # type: ignore[misc]
    kept = first.logits.tobytes()
    ranks.forward(prefill([1, 2, 3]))
    [[again]] = ranks.forward(prefill(TOKENS))  # type: ignore[misc]
    assert again.logits.tobytes() == kept


def test_a_rank_says_that_it_works(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2)
    before = [int(words[0]) for words in ranks.progress]
    ranks.forward(prefill(TOKENS))
    after = [int(words[0]) for words in ranks.progress]
    assert all(a > b for a, b in zip(after, before, strict=True))


def test_rank_0_keeps_the_last_states_it_is_asked_for(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(1)
    ranks.forward(replace(prefill(TOKENS), hidden_at=np.array([4, 1], np.int32)))
    states = ranks.ranks[0].hidden.copy()
    assert states.shape == (2, CONFIG.dim) and states.dtype == np.float32
    ranks.forward(replace(prefill(TOKENS), hidden_at=np.array([1], np.int32)))
    assert np.array_equal(ranks.ranks[0].hidden, states[1:])
    ranks.forward(prefill(TOKENS))
    assert ranks.ranks[0].hidden.shape[0] == 0


def test_pages_are_saved_and_restored_by_their_mark(make_ranks: MakeRanks, tmp_path: Path) -> None:
    ranks = make_ranks(1)
    rank, path = ranks.ranks[0], tmp_path / "sessions" / "chat.kv"
    ranks.forward(prefill(list(range(40))))
    [before] = ranks.forward(prefill([7], start=40))
    n_bytes = rank.save_kv(path, HELD, MARK, tick)
    assert path.stat().st_size == n_bytes > 0
    ranks.forward(prefill([3] * 50))
    assert rank.load_kv(path, HELD, MARK, tick) == n_bytes
    [after] = ranks.forward(prefill([7], start=40))
    assert before is not None and after is not None
    assert before[0].logits.tobytes() == after[0].logits.tobytes()
    with pytest.raises(SessionFileError):
        rank.load_kv(path, HELD, OTHER_MARK, tick)
    with pytest.raises(SessionFileError):
        rank.load_kv(tmp_path / "missing.kv", HELD, MARK, tick)


def test_a_shift_is_followed_by_other_steps(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(1)
    ranks.forward(prefill(list(range(50))))
    ranks.ranks[0].shift(KvShift(50, 5, 22, np.array([0, 1], np.int32), np.array([3], np.int32)))
    step = prefill([9], start=28)
    step.pages[:] = 3
    [rows] = ranks.forward(step)
    assert rows is not None and np.isfinite(rows[0].logits).all()
