"""Rows that are computed in groups, while the sums of others travel, have the bits of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import Addend, Collective, Pending, RowShares
from dllama.qtypes import QType
from dllama.runtime import executor, rank
from dllama.runtime.graph import Finish, Gather, Scatter
from dllama.runtime.rows import rows_of, split
from dllama.step import Step
from kernels.program import Call
from tests.local_model import Ranks, make_step
from tests.toy_models import write_toy


class Later:
    """A collective of threads that happens when its results are asked for."""

    def __init__(self, happen: Callable[[], None]) -> None:
        self.finish = happen


class InGroups(ThreadCollective):
    """Threads whose sums and rows come as late as they may, and nobody else's than they should."""

    def __init__(self, group: ThreadGroup, rank: int, n_groups: int) -> None:
        super().__init__(group, rank)
        self._n_groups = n_groups

    def n_groups(self, n_rows: int, dim: int, least_rows: int) -> int:
        return min(self._n_groups, n_rows)

    def shares(self, n_rows: int) -> RowShares:
        return RowShares.even(n_rows, self._rank, self._group.world_size)

    def begin_reduce_scatter(self, x: Addend, out: np.ndarray, shares: RowShares) -> Pending:
        kept = x.copy() if isinstance(x, np.ndarray) else type(x)(*(p.copy() for p in x))
        own = shares.own

        def happen() -> None:
            total = np.zeros_like(out)
            self.all_reduce(kept, total)
            out[:] = np.nan
            out[own] = total[own]

        return Later(happen)

    def begin_all_gather(self, rows: np.ndarray, shares: RowShares) -> Pending:
        sent = rows[shares.own].tobytes()

        def happen() -> None:
            self._group.parts[self._rank] = sent
            self._group.meet(self._rank)
            whole = b"".join(self._group.parts)
            self._group.meet(self._rank)
            rows[:] = np.frombuffer(whole, np.float32).reshape(rows.shape)

        return Later(happen)


def steps() -> list[Step]:
    rng = np.random.default_rng(5)

    def some(n: int) -> list[int]:
        return list(rng.integers(0, 352, n).tolist())

    return [
        make_step([(0, some(30), 0), (1, some(1), 0), (2, some(31), 0)], every_row=True),
        make_step([(0, some(49), 30), (1, some(1), 1), (2, some(40), 31)]),
        make_step([(s, some(1), {0: 79, 1: 2, 2: 71}[s]) for s in range(3)]),
    ]


def chunks() -> list[Step]:
    """Prompts in chunks of one size, of one sequence or two: what is alike has other positions,
    pages and slots."""
    rng = np.random.default_rng(6)

    def some(s: int, n: int, at: int) -> tuple[int, list[int], int]:
        return s, rng.integers(0, 352, n).tolist(), at

    found = [make_step([some(s, 40, 40 * i)]) for s in (0, 2) for i in range(4)]
    found += [make_step([some(2 * s + 1, 25, 25 * i), some(2 * s, 3, 160 + 3 * i)])
              for i in range(4) for s in (0, 1)]  # fmt: skip
    found = [replace(step, hidden_at=step.starts[1:] - 2) for step in found]
    other = [make_step([some(0, 3, 200 + 3 * i), some(1, 25, 110 + 25 * i)]) for i in range(4)]
    found += [replace(step, hidden_at=step.starts[1:] - 2) for step in other]
    found += [replace(step, hidden_at=np.array([2, 7], np.int32)) for step in other]
    found += [replace(step, logits_at=step.logits_at - [1, 2]) for step in found[-4:]]
    ends = np.array([1, 27], np.int32)
    found += [
        replace(make_step([some(0, n, n * i), some(1, 28 - n, (28 - n) * i)]), logits_at=ends)
        for n in (9, 19) for i in range(4)
    ]  # fmt: skip
    return found


def logits(
    path: Path, n_groups: int, n_ranks: int, these: Sequence[Step] = (), alike_before: int = 99
) -> list[np.ndarray]:
    """Returns the logits of some steps, and after them the states they keep."""
    group = ThreadGroup(n_ranks)
    comms: list[Collective] = [InGroups(group, rank, n_groups) for rank in range(n_ranks)]
    ranks = Ranks(path, [1.0] * n_ranks, comms)
    found = []
    try:
        for model in ranks.models:
            model.executor.alike_before = alike_before
        for step in these or steps():
            found += [row.logits.copy() for row in ranks.run(step)]
            found += [ranks.models[0].hidden.copy()]
        return found
    finally:
        ranks.close()


@pytest.mark.parametrize("qtype", [QType.F32, QType.BF16, QType.Q4_0])
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_groups_change_nothing(tmp_path: Path, qtype: QType, n_ranks: int) -> None:
    path = write_toy(tmp_path / "toy.gguf", qtype=qtype, n_heads=4, n_kv_heads=2)
    whole = logits(path, 0, 1)
    for n_groups in (1, 2, 3, 7):
        found = logits(path, n_groups, n_ranks)
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))


def test_groups_of_a_mixture_have_its_biases(tmp_path: Path) -> None:
    """One bias is added to whole sums, others are a part of one rank's."""
    path = write_toy(tmp_path / "toy.gguf", arch="gpt-oss", n_kv_heads=2)
    whole = logits(path, 0, 1)
    for n_groups, n_ranks in ((3, 1), (2, 2), (7, 3)):
        found = logits(path, n_groups, n_ranks)
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("arch", ["llama", "olmo2", "gpt-oss", "deepseek2", "qwen3next"])
@pytest.mark.parametrize("n_groups", [0, 1, 3])
def test_long_steps_that_are_replayed_have_the_same_bits(
    tmp_path: Path, arch: str, n_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_toy(tmp_path / "toy.gguf", arch=arch, hidden_dim=96, n_kv_heads=2, seed=4,
                     qtype=QType.Q8_0)  # fmt: skip
    plain = logits(path, n_groups, 2, chunks())
    computed, forward = [], rank.forward
    monkeypatch.setattr(rank, "forward", lambda *args: (computed.append(1), forward(*args)))
    found = logits(path, n_groups, 2, chunks(), alike_before=1)
    assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))
    assert len(computed) == 2 * (1 + 7 * 2)  # of each rank: to warm up, and two of each kind


def test_few_graphs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last."""
    monkeypatch.setattr(executor, "MAX_GRAPHS", 2)
    path = write_toy(tmp_path / "toy.gguf", n_kv_heads=2)
    ranks = Ranks(path, [1.0], [ThreadCollective(ThreadGroup(1), 0)])
    own = ranks.models[0].executor
    own.alike_before = 0

    def kept(n: int) -> set[int]:
        ranks.run(make_step([(0, [7] * n, 0)]))
        return {key.n_rows for key in own._graphs}

    assert [kept(n) for n in (20, 1, 30, 1, 20)] == [{1, 20}, {1, 20}, {1, 30}, {1, 30}, {1, 20}]
    ranks.close()


@pytest.mark.parametrize("arch", ["llama", "olmo2", "qwen3moe"])
def test_something_is_computed_while_sums_and_rows_travel(tmp_path: Path, arch: str) -> None:
    """Behind the first layer and before the last one."""
    path = write_toy(tmp_path / "toy.gguf", arch=arch, n_layers=6, n_kv_heads=2)
    ranks = Ranks(path, [1.0], [InGroups(ThreadGroup(1), 0, 3)])
    own = ranks.models[0].executor
    own.alike_before = 0
    try:
        ranks.run(make_step([(0, [7] * 60, 0)]))
        [trace] = [graph.trace for key, graph in own._graphs.items() if key.n_groups == 3]
    finally:
        ranks.close()
    n_products, begun, between = 0, dict[int, int](), []
    for each in trace:
        if isinstance(each, Call):
            n_products += "multiply" in each.kernel.name or "expanded" in each.kernel.name
        elif isinstance(each, Scatter | Gather):
            begun[each.number] = n_products
        elif isinstance(each, Finish):
            between.append(n_products - begun[each.number])
    assert len(between) > 60
    assert min(between[15:-15]) >= 1


@pytest.mark.parametrize("n_groups", [0, 1, 3])
@pytest.mark.parametrize("at", [[], [0, 17, 44], list(range(60))], ids=["none", "some", "all"])
def test_states_of_any_rows_may_be_wanted(tmp_path: Path, n_groups: int, at: list[int]) -> None:
    """Where no state is wanted, keys and values are stored all the same."""
    path = write_toy(tmp_path / "toy.gguf", qtype=QType.Q8_0, n_heads=4, n_kv_heads=2)
    tokens = np.random.default_rng(8).integers(0, 352, 61).tolist()
    found = []
    for groups, n_ranks in ((0, 1), (n_groups, 2)):
        group = ThreadGroup(n_ranks)
        ranks = Ranks(path, [1.0] * n_ranks, [InGroups(group, r, groups) for r in range(n_ranks)])
        try:
            prompt = replace(
                make_step([(0, tokens[:60], 0)]),
                logits_at=np.array(at[1:2], np.int32),
                candidates=np.zeros(len(at[1:2]), np.int32),
                hidden_at=np.array(at[::-1], np.int32),
            )
            logits = [row.logits.copy() for row in ranks.run(prompt)]
            states = ranks.models[0].hidden.copy()
            logits += [row.logits for row in ranks.run(make_step([(0, tokens[60:], 60)]))]
            found.append((states.tobytes(), [each.tobytes() for each in logits]))
            assert states.shape == (len(at), 64) and len(logits) == min(len(at), 1) + 1
        finally:
            ranks.close()
    assert found[0] == found[1]


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6), n_groups=st.integers(1, 8))
def test_each_row_is_in_one_group_with_its_sequence(lengths: list[int], n_groups: int) -> None:
    step = make_step([(s, [7] * n, 3 * s) for s, n in enumerate(lengths)], pages_each=3)
    rows = rows_of(replace(step, window_pages=step.pages[:, ::-1].copy()))
    n_groups = min(n_groups, rows.n)
    groups = split(rows, n_groups)
    assert [first for first, _ in groups] == [rows.n * i // n_groups for i in range(n_groups)]
    at = 0
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    for first, group in groups:
        assert first == at and group.starts[0] == 0 and group.starts[-1] == group.n
        assert (np.diff(group.starts) > 0).all() and len(group.table.pages) == len(group.starts) - 1
        for i, (begin, end) in enumerate(zip(group.starts, group.starts[1:], strict=False)):
            mine = set(sequence[at + begin : at + end].tolist())
            [s] = mine
            assert np.array_equal(group.table.pages[i], rows.table.pages[s])
            assert np.array_equal(group.window_table.pages[i], rows.window_table.pages[s])
        assert np.array_equal(group.positions, rows.positions[at : at + group.n])
        own = slice(at, at + group.n)
        assert np.array_equal(group.table.row_pages, rows.table.row_pages[own])
        assert np.array_equal(group.window_table.row_pages, rows.window_table.row_pages[own])
        at += group.n
    assert at == rows.n
