"""Our logits beside those of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.formats import open_model
from dllama.kv import KvType
from tests.local_model import Ranks, make_step


def compare(model: Path, expected: np.ndarray, tokens: Sequence[int], n_prompt: int) -> None:
    """Of a prompt and of single tokens, on one to three nodes."""
    for n_ranks in (1, 2, 3):
        group = ThreadGroup(n_ranks)
        comms = [ThreadCollective(group, rank) for rank in range(n_ranks)]
        ranks = Ranks(open_model(model), [1.0] * n_ranks, comms, kv_type=KvType.F32)
        rows = ranks.run(make_step([(0, list(tokens[:n_prompt]), 0)], every_row=True))
        rows += [
            ranks.run(make_step([(0, [token], at)]))[0]
            for at, token in enumerate(tokens[n_prompt:], start=n_prompt)
        ]
        ranks.close()
        got = np.array([row.logits for row in rows])
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
