"""Our logits of a model beside those of others, on one to three nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.formats import open_model
from dllama.kv import KvShift
from dllama.kv_type import KvType
from dllama.step import PAGE_TOKENS
from tests.local_model import Ranks, make_step


class Shift(NamedTuple):
    """A context that is full after `at` tokens: of those after the first `n_keep`, `n_drop` go."""

    at: int
    n_keep: int
    n_drop: int


def compare(
    model: Path,
    expected: np.ndarray,
    tokens: Sequence[int],
    n_prompt: int,
    *,
    rows: Sequence[int] | None = None,
    shift: Shift | None = None,
    n_ranks: Sequence[int] = (1, 2, 3),
    within: float = 1e-4,
) -> None:
    """Of a prompt and of single tokens, on some numbers of nodes; `within` is a part of the largest
    logit. `expected` has all rows or those of `rows`. A context that is full is shifted before its
    next token."""
    for world_size in n_ranks:
        got = _logits(model, tokens, n_prompt, shift, world_size)[
            slice(None) if rows is None else rows
        ]
        np.testing.assert_allclose(got, expected, atol=within * np.abs(expected).max())


def _logits(
    model: Path, tokens: Sequence[int], n_prompt: int, shift: Shift | None, world_size: int
) -> np.ndarray:
    group = ThreadGroup(world_size)
    comms = [ThreadCollective(group, rank) for rank in range(world_size)]
    ranks = Ranks(open_model(model), [1.0] * world_size, comms, kv_type=KvType.F32)
    rows = ranks.run(make_step([(0, list(tokens[:n_prompt]), 0)], every_row=True))
    n_held = n_prompt
    for at, token in enumerate(tokens[n_prompt:], start=n_prompt):
        if shift is not None and at == shift.at:
            n_held -= _shift(ranks, shift)
        rows += ranks.run(make_step([(0, [token], n_held)]))
        n_held += 1
    ranks.close()
    return np.array([row.logits for row in rows])


def _shift(ranks: Ranks, shift: Shift) -> int:
    """Returns how many tokens went; the pages stay where `make_step` has them."""
    held, left = (
        np.arange(-(-n // PAGE_TOKENS), dtype=np.int32) for n in (shift.at, shift.at - shift.n_drop)
    )
    for model in ranks.models:
        model.shift(KvShift(*shift, held, left, held, left))
    return shift.n_drop
