"""Log-probabilities of a real model's tokens, on one rank and on three, whole rows and few
candidates, against the float64 log-softmax of the logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.engine.sampling.sampler import Sampler
from dllama.requests import SamplingParams
from tests.local_model import Ranks, make_step
from tests.toy_models import write_toy

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_logprobs_are_right(tmp_path: Path, n_ranks: int) -> None:
    group = ThreadGroup(n_ranks)
    comms = [ThreadCollective(group, rank) for rank in range(n_ranks)]
    ranks = Ranks(write_toy(tmp_path / "toy.gguf"), [1.0] * n_ranks, list(comms))
    try:
        whole = ranks.run(make_step([(0, TOKENS, 0)], every_row=True))
        few = ranks.run(make_step([(0, TOKENS, 0)], every_row=True, candidates=20))
    finally:
        ranks.close()
    sampler = Sampler(SamplingParams(temperature=0.0, n_probs=20), len(whole[0].logits))
    assert sampler.n_candidates == 20
    for row, short in zip(whole, few, strict=True):
        assert row.ids is None and short.ids is not None
        x = row.logits.astype(np.float64)
        expected = x - x.max() - np.log(np.exp(x - x.max()).sum())
        order = np.argsort(-expected, kind="stable")[:20]
        told, again = sampler.choose(row, TOKENS).probs, sampler.choose(short, TOKENS).probs
        assert told is not None and told == again
        assert told.token == order[0] and told.top_ids == order.tolist()
        np.testing.assert_allclose(told.top_values, expected[order], atol=1e-4)
