"""Rows that are computed in groups, while the sums of others travel, have the bits of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import Addend, Collective, Pending, RowShares
from dllama.qtypes import QType
from dllama.runtime.rows import rows_of, split
from dllama.step import Step
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

    def n_groups(self, n_rows: int) -> int:
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


def logits(path: Path, n_groups: int, n_ranks: int) -> list[np.ndarray]:
    group = ThreadGroup(n_ranks)
    comms: list[Collective] = [InGroups(group, rank, n_groups) for rank in range(n_ranks)]
    ranks = Ranks(path, [1.0] * n_ranks, comms)
    try:
        return [row.logits.copy() for step in steps() for row in ranks.run(step)]
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
