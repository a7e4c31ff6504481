"""DRY against its definition, and the lengths of repetitions against the plainest count."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.sampling.dry import DryPenalties, Repeats, suffix_matches
from dllama.engine.sampling.processors import processed_row
from dllama.requests import SamplingParams
from tests.dllama.engine.sampling.plain_sampler import dry_lengths


def common_end(tokens: list[int], place: int) -> int:
    n = 0
    while n <= place and tokens[place - n] == tokens[-1 - n]:
        n += 1
    return n


@given(tokens=st.lists(st.integers(0, 2), max_size=60))
def test_suffix_matches_are_counted(tokens: list[int]) -> None:
    expected = [common_end(tokens, place) for place in range(len(tokens) - 1)]
    assert suffix_matches(tokens)[:-1] == expected


@given(
    tokens=st.lists(st.integers(0, 2), max_size=80),
    last_n=st.integers(-1, 30),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_repeats_are_the_same_however_tokens_come(
    tokens: list[int], last_n: int, cuts: list[int]
) -> None:
    repeats = Repeats(last_n)
    for end in [*sorted(cut for cut in cuts if cut <= len(tokens)), len(tokens)]:
        repeats.follow(tokens[:end])
    window = tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :]
    assert repeats.tokens.tolist() == window
    expected = [common_end(window, place) for place in range(len(window) - 1)]
    assert repeats.lengths().tolist() == expected


@given(
    tokens=st.lists(st.integers(0, 4), max_size=70),
    cuts=st.lists(st.integers(0, 70), max_size=4),
    params=st.builds(
        SamplingParams,
        dry_multiplier=st.just(0.5),
        dry_base=st.sampled_from([1.0, 1.75]),
        dry_allowed_length=st.integers(0, 4),
        dry_penalty_last_n=st.sampled_from([-1, 3, 20, 64]),
        dry_breakers=st.lists(st.integers(0, 4), max_size=1),
        dry_phrases=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=2),
    ),
)
def test_penalties_are_the_definitions(
    tokens: list[int], cuts: list[int], params: SamplingParams
) -> None:
    edit = DryPenalties(params)
    for end in [*sorted(cut for cut in cuts if cut <= len(tokens)), len(tokens)]:
        edit.follow(tokens[:end])
    lengths = dry_lengths(tokens, params)
    assert set(edit.touched()) == set(lengths)
    found = processed_row(np.zeros(5, np.float32), [edit])
    for token, length in lengths.items():
        lost = 0.5 * params.dry_base ** (length - params.dry_allowed_length)
        assert found[token] == -np.float32(lost)


def test_a_long_repetition_leaves_numbers() -> None:
    """As in llama.cpp the factor stops growing before a float32 overflows."""
    edit = DryPenalties(SamplingParams(dry_multiplier=5.0, dry_base=4.0, dry_penalty_last_n=-1))
    edit.follow([7] * 3000)
    assert np.isfinite(processed_row(np.zeros(9, np.float32), [edit])).all()
