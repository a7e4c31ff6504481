"""Bias and penalties against the definition, one token at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.penalties import TokenCounts, edit_listed, edit_row, has_penalties, n_lowered
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
    params = SamplingParams(
        repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, repeat_last_n=64
    )
    seen = TokenCounts(64)
    seen.follow([0, 0, 0, 1, 2])
    logits = np.array([4.0, -4.0, 0.0, 4.0], np.float32)
    # Seen three times: 4 / 2 - 3 * 0.25 - 0.5; once, below and at zero: times 2, then both.
    assert edit_row(logits, params, seen).tolist() == [0.75, -8.75, -0.75, 4.0]
    assert logits.tolist() == [4.0, -4.0, 0.0, 4.0], "the runner's row is left alone"


def test_bias_comes_before_the_penalties() -> None:
    params = SamplingParams(repeat_penalty=2.0, logit_bias={0: -5.0, 2: 1.5, 3: -np.inf})
    seen = TokenCounts(64)
    seen.follow([0])
    logits = np.array([4.0, 1.0, 1.0, 1.0], np.float32)
    assert edit_row(logits, params, seen).tolist() == [-2.0, 1.0, 2.5, -np.inf]


def test_a_list_is_edited_like_the_row() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=50).astype(np.float32)
    params = SamplingParams(repeat_penalty=1.3, frequency_penalty=0.1, logit_bias={3: -1.0, 7: 2.0})
    seen = TokenCounts(-1)
    seen.follow(rng.integers(0, 50, 40).tolist())
    ids = np.array([3, 9, 7, 1], np.int32)
    row = edit_row(logits, params, seen)
    assert np.array_equal(edit_listed(ids, logits[ids], params, seen), row[ids])


def test_nothing_to_do_returns_the_row_itself() -> None:
    logits = np.zeros(4, np.float32)
    assert edit_row(logits, SamplingParams(), None) is logits
    assert not has_penalties(SamplingParams(repeat_penalty=1.5, repeat_last_n=0))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(), 0),
        (SamplingParams(logit_bias={1: -1.0, 2: -3.0}), 2),
        (SamplingParams(logit_bias={1: 1.0}), None),
        (SamplingParams(repeat_penalty=1.1), 64),
        (SamplingParams(repeat_penalty=1.1, repeat_last_n=-1), None),
        (SamplingParams(repeat_penalty=0.9), None),
        (SamplingParams(presence_penalty=-0.1), None),
        (SamplingParams(frequency_penalty=0.1, repeat_last_n=10, logit_bias={5: -1.0}), 11),
    ],
)
def test_how_many_tokens_may_be_lowered(params: SamplingParams, expected: int | None) -> None:
    assert n_lowered(params) == expected
