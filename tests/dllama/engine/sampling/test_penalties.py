"""Bias and penalties against the definition, one token at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.sampling.penalties import Penalties, TokenCounts, has_penalties
from dllama.engine.sampling.processors import bias_of, processed, processed_row
from dllama.requests import SamplingParams


@given(
    tokens=st.lists(st.integers(0, 5), max_size=60),
    last_n=st.integers(-1, 12),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_counts_follow_the_last_n(tokens: list[int], last_n: int, cuts: list[int]) -> None:
    seen = TokenCounts(last_n)
    for end in [*sorted(cut for cut in cuts if cut <= len(tokens)), len(tokens)]:
        seen.follow(tokens[:end])
        window = tokens[:end] if last_n < 0 else tokens[max(0, end - last_n) : end]
        assert seen.counts == dict(Counter(window))


def test_penalties_are_those_of_llama_cpp() -> None:
    edit = Penalties(
        SamplingParams(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    )
    edit.follow([0, 0, 0, 1, 2])
    logits = np.array([4.0, -4.0, 0.0, 4.0], np.float32)
    # Seen three times: 4 / 2 - 3 * 0.25 - 0.5; once, below and at zero: times 2, then both.
    assert processed_row(logits, [edit]).tolist() == [0.75, -8.75, -0.75, 4.0]
    assert logits.tolist() == [4.0, -4.0, 0.0, 4.0], "the runner's row is left alone"


def test_bias_comes_before_the_penalties() -> None:
    params = SamplingParams(repeat_penalty=2.0, logit_bias={0: -5.0, 2: 1.5, 3: -np.inf})
    edit = Penalties(params)
    edit.follow([0])
    logits = np.array([4.0, 1.0, 1.0, 1.0], np.float32)
    assert processed_row(logits, [*bias_of(params), edit]).tolist() == [-2.0, 1.0, 2.5, -np.inf]


def test_a_list_is_edited_like_the_row() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=50).astype(np.float32)
    params = SamplingParams(
        repeat_penalty=1.3, frequency_penalty=0.1, repeat_last_n=-1, logit_bias={3: -1.0, 7: 2.0}
    )
    edit = Penalties(params)
    edit.follow(rng.integers(0, 50, 40).tolist())
    edits = [*bias_of(params), edit]
    ids = np.array([3, 9, 7, 1], np.int32)
    assert np.array_equal(processed(ids, logits[ids], edits), processed_row(logits, edits)[ids])


def test_nothing_to_do_returns_the_row_itself() -> None:
    logits = np.zeros(4, np.float32)
    assert processed_row(logits, []) is logits
    assert processed_row(logits, [Penalties(SamplingParams(repeat_penalty=1.5))]) is logits
    assert not has_penalties(SamplingParams(repeat_penalty=1.5, repeat_last_n=0))
