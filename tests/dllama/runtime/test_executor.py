"""Half layers that are replayed give the bits that computing them call by call gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import SoloCollective
from dllama.qtypes import QType
from dllama.runtime.executor import ALIKE_BEFORE, FEW_ROWS
from dllama.runtime.rows import rows_of
from dllama.step import Step
from tests.local_model import Ranks, make_step
from tests.toy_models import write_toy


def steps() -> Iterator[Step]:
    """Prompts, answers of one to several sequences, guesses, and more pages as they grow."""
    rng = np.random.default_rng(3)
    at = [0, 0, 0]

    def chunk(s: int, n: int) -> tuple[int, list[int], int]:
        at[s] += n
        return s, rng.integers(0, 352, n).tolist(), at[s] - n

    yield make_step([chunk(0, 20)])
    for turn in range(30):
        yield make_step([chunk(0, 1)])
        if turn % 3 == 0:
            yield make_step([chunk(1, 1), chunk(2, 1)], candidates=5)
        if turn % 5 == 0:
            yield make_step([chunk(0, 3), chunk(1, 1)], every_row=True)
        if turn == 15:
            yield make_step([chunk(1, FEW_ROWS + 1), chunk(2, 40)])
    for _ in range(4):
        yield make_step([chunk(0, 3)], every_row=True)
    for _ in range(4):
        yield make_step([chunk(s, 1) for s in range(3)], every_row=True)
    for _ in range(6):
        step = make_step([chunk(0, 1), chunk(2, 2)])
        narrow = -(-max(at) // 32)
        yield replace(step, pages=np.ascontiguousarray(step.pages[:, :narrow]))


def logits(path: Path, shares: list[float], alike_before: int) -> tuple[list[np.ndarray], Ranks]:
    group = ThreadGroup(len(shares))
    ranks = Ranks(path, shares, [ThreadCollective(group, i) for i in range(len(shares))])
    for model in ranks.models:
        model.executor.alike_before = alike_before
    try:
        return [row.logits.copy() for step in steps() for row in ranks.run(step)], ranks
    finally:
        ranks.close()


@pytest.mark.parametrize("qtype", [QType.F32, QType.Q4_0])
@pytest.mark.parametrize("shares", [[1.0], [1, 1], [9, 1]], ids=str)
def test_replays_change_nothing(tmp_path: Path, qtype: QType, shares: list[float]) -> None:
    """Also where one of the ranks has no heads."""
    path = write_toy(tmp_path / "toy.gguf", qtype=qtype, n_heads=4, n_kv_heads=2)
    plain, ranks = logits(path, shares, 1_000_000)
    assert all(model.executor.n_graphs <= 1 for model in ranks.models)  # the warm-up's
    for alike_before in (0, ALIKE_BEFORE):
        found, ranks = logits(path, shares, alike_before)
        n_graphs = [model.executor.n_graphs for model in ranks.models]
        assert min(n_graphs) >= (4 if alike_before == 0 else 1)
        assert len(found) == len(plain)
        for a, b in zip(found, plain, strict=True):
            assert np.array_equal(a, b)


def test_a_step_begins_with_its_own_rows(tmp_path: Path) -> None:
    """Whether they are moved to arrays that stay where they are or not."""
    ranks = Ranks(write_toy(tmp_path / "toy.gguf"), [1.0], [SoloCollective()])
    executor = ranks.models[0].executor
    for step in steps():
        others = step.pages[:, ::-1].copy()
        rows = rows_of(replace(step, window_pages=others))
        assert np.array_equal(rows.window_table.pages, others)
        begun = executor.begin(rows, SoloCollective())
        assert begun.n == rows.n
        for mine, its in ((begun.table, rows.table), (begun.window_table, rows.window_table)):
            assert np.array_equal(mine.pages[:, : its.pages.shape[1]], its.pages)
            assert np.array_equal(mine.row_pages, its.row_pages)
        for name in ("starts", "positions", "logits_at"):
            assert np.array_equal(getattr(begun, name), getattr(rows, name)), name
    ranks.close()
