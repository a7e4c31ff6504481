"""What no model's logits may depend on, bit for bit: where a prompt is cut, who else is in the
step, and whether a step is replayed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dllama.runtime.executor import ALIKE_BEFORE
from tests.dllama.runtime.test_executor import logits
from tests.local_model import local_runner, make_step


def chunks_equal_the_whole(
    model: Path, tokens: Sequence[int], all_cuts: Sequence[Sequence[int]], threads: int = 2
) -> None:
    with local_runner(model, threads=threads) as runner:
        [whole] = runner.run(make_step([(0, list(tokens), 0)]))
        for cuts in all_cuts:
            for start, end in itertools.pairwise(cuts):
                [row] = runner.run(make_step([(1, list(tokens[start:end]), start)]))
            assert np.array_equal(row.logits, whole.logits)


def batches_equal_singles(model: Path, tokens: Sequence[int]) -> None:
    sequences = [list(tokens[a:b]) for a, b in ((0, 50), (10, 25), (30, 31), (5, 45))]
    with local_runner(model, threads=2) as runner:
        alone = [runner.run(make_step([(0, s, 0)]))[0].logits.copy() for s in sequences]
        together = runner.run(make_step([(i, s, 0) for i, s in enumerate(sequences)]))
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b.logits)


def replays_change_nothing(model: Path, shares: list[float]) -> None:
    plain, _ = logits(model, shares, 1_000_000)
    found, ranks = logits(model, shares, ALIKE_BEFORE)
    assert all(each.executor.n_graphs > 0 for each in ranks.models)
    for a, b in zip(found, plain, strict=True):
        assert np.array_equal(a, b)
