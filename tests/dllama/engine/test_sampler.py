"""The sampler against the plainest float64 program that follows the definition."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.noise import uniform
from dllama.engine.penalties import TokenCounts, has_penalties
from dllama.engine.sampler import candidates_wanted, largest, sample
from dllama.errors import DllamaError, RequestError
from dllama.requests import SamplingParams
from dllama.step import MAX_CANDIDATES, LogitRow
from tests.dllama.engine.history_runner import logit_row


def expected_choice(
    logits: np.ndarray, params: SamplingParams, position: int, tokens: list[int]
) -> int:
    """The definition, with lists and full sorts."""
    edited = logits.astype(np.float64)
    for token, bias in params.logit_bias.items():
        edited[token] += bias
    last_n = params.repeat_last_n
    recent = tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :]
    for token, count in Counter(recent).items():
        x = edited[token]
        x = x / params.repeat_penalty if x > 0 else x * params.repeat_penalty
        edited[token] = x - count * params.frequency_penalty - params.presence_penalty
    values = edited.astype(np.float32).astype(np.float64)
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    if params.temperature == 0.0:
        return order[0]
    if params.top_k:
        order = order[: params.top_k]
    best = values[order[0]]
    weights = [math.exp(values[token] - best) for token in order]
    total, kept, target = 0.0, 0, params.top_p * math.fsum(weights)
    for weight in weights:
        total += weight
        kept += 1
        if params.top_p < 1.0 and total >= target:
            break
    order = [token for token in order[:kept] if math.exp(values[token] - best) >= params.min_p]
    weights = [math.exp((values[token] - best) / params.temperature) for token in order]
    point, total = uniform(params.seed, position) * math.fsum(weights), 0.0
    for token, weight in zip(order, weights, strict=True):
        total += weight
        if total >= point:
            return token
    return order[-1]


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.2, 0.9, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.0, 1.2, 0.9]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.7, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3]),
    repeat_last_n=st.sampled_from([-1, 0, 3, 8, 64]),
    logit_bias=st.dictionaries(st.integers(0, 59), st.sampled_from([-5.0, -0.5, 2.0]), max_size=3),
    seed=st.integers(0, 1 << 63),
)


def seen_of(tokens: list[int], params: SamplingParams) -> TokenCounts | None:
    if not has_penalties(params):
        return None
    seen = TokenCounts(params.repeat_last_n)
    seen.follow(tokens)
    return seen


@settings(max_examples=400, deadline=None)
@given(
    params=params_strategy,
    logits_seed=st.integers(0, 1000),
    is_coarse=st.booleans(),
    position=st.integers(0, 1 << 40),
    tokens=st.lists(st.integers(0, 59), max_size=20),
)
def test_choice_is_the_definitions(
    params: SamplingParams, logits_seed: int, is_coarse: bool, position: int, tokens: list[int]
) -> None:
    """Whole, and as the candidates that `candidates_wanted` asks for; with ties and without."""
    logits = np.random.default_rng(logits_seed).normal(size=60).astype(np.float32) * 2
    if is_coarse:
        logits = np.round(logits).astype(np.float32)
    seen = seen_of(tokens, params)
    expected = expected_choice(logits, params, position, tokens)
    assert sample(logit_row(logits, 0), params, position, seen) == expected
    wanted = candidates_wanted(params)
    if wanted:
        assert sample(logit_row(logits, wanted), params, position, seen) == expected
        assert sample(logit_row(logits, wanted + 3), params, position, seen) == expected


@pytest.mark.parametrize("spread", [8.0, 3.0, 1.0, 0.1, 0.0])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
        SamplingParams(temperature=0.7, top_k=0, top_p=0.9, min_p=0.0),
        SamplingParams(temperature=3.0, top_k=0, top_p=0.999, min_p=0.0),
        SamplingParams(temperature=0.7, top_k=0, top_p=0.9, min_p=0.05),
        SamplingParams(temperature=0.7, top_k=0, top_p=0.999, min_p=0.9),
        SamplingParams(temperature=0.7, top_k=40),
        SamplingParams(temperature=0.7, top_k=9000, min_p=0.0),
        SamplingParams(temperature=0.7, top_k=0, logit_bias={5: -math.inf, 6: 9.0}),
    ],
)
def test_a_wide_vocabulary_is_sampled_alike(params: SamplingParams, spread: float) -> None:
    """More logits than are ever sorted at once: bins find the same token as a full sort."""
    logits = (np.random.default_rng(7).normal(size=20_011) * spread).astype(np.float32)
    logits[100] = -np.inf
    for position in range(4):
        expected = expected_choice(logits, params, position, [])
        assert sample(logit_row(logits, 0), params, position) == expected


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32))
    row = logit_row(logits, 0)
    for params, shares in (
        (
            SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
            [0.4, 0.3, 0.15, 0.1, 0.05],
        ),
        (SamplingParams(temperature=0.5, top_k=3, top_p=1.0, min_p=0.0), [0.16, 0.09, 0.0225]),
        (SamplingParams(temperature=1.0, top_k=0, top_p=0.69, min_p=0.0), [0.4, 0.3]),
        (SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.3), [0.4, 0.3, 0.15]),
    ):
        counts = Counter(sample(row, params, position) for position in range(6000))
        assert set(counts) == set(range(len(shares)))
        wanted = np.array(shares) / sum(shares) * 6000
        found = np.array([counts[token] for token in range(len(shares))])
        assert float(((found - wanted) ** 2 / wanted).sum()) < 18.5  # 4 degrees, 99.9 %


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    greedy = SamplingParams(temperature=0.0)
    assert sample(logit_row(logits, 0), greedy, 0) == 1
    assert sample(logit_row(logits, 1), greedy, 0) == 1


@given(
    logits=st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), min_size=1, max_size=80),
    k=st.integers(1, 90),
    repeats=st.sampled_from([1, 40]),
)
def test_largest_is_a_prefix_of_the_full_sort(logits: list[float], k: int, repeats: int) -> None:
    values = np.array(logits * repeats, np.float32)
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    assert largest(values, k).tolist() == order[:k]


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (SamplingParams(), 40),
        (SamplingParams(temperature=0.0, top_k=0), 1),
        (SamplingParams(temperature=0.0, repeat_penalty=1.1), 65),
        (SamplingParams(top_k=MAX_CANDIDATES), MAX_CANDIDATES),
        (SamplingParams(top_k=MAX_CANDIDATES + 1), 0),
        (SamplingParams(top_k=0), 0),
        (SamplingParams(top_k=40, repeat_penalty=1.1), 104),
        (SamplingParams(top_k=200, repeat_penalty=1.1), 0),
        (SamplingParams(logit_bias={1: 1.0}), 0),
        (SamplingParams(logit_bias={1: -1.0}), 41),
    ],
)
def test_how_many_candidates_are_wanted(params: SamplingParams, wanted: int) -> None:
    assert candidates_wanted(params) == wanted


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 1e6])
def test_extreme_temperatures_are_numbers(temperature: float) -> None:
    logits = np.array([3.0, 2.0, 3.0, -np.inf], np.float32)
    for top_k in (0, 3):
        params = SamplingParams(temperature=temperature, top_k=top_k, top_p=1.0, min_p=0.0)
        chosen = {sample(logit_row(logits, 0), params, position) for position in range(60)}
        assert chosen == ({0, 2} if temperature < 1.0 else {0, 1, 2})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad: float) -> None:
    row = LogitRow(None, np.array([bad, 1.0], np.float32), bad)
    with pytest.raises(DllamaError, match="not numbers"):
        sample(row, SamplingParams(), 0)


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forbidding_everything_is_an_error(temperature: float, top_k: int) -> None:
    bias = {0: -math.inf, 1: -math.inf}
    params = SamplingParams(temperature=temperature, top_k=top_k, logit_bias=bias)
    with pytest.raises(RequestError, match="forbids every token"):
        sample(logit_row(np.zeros(2, np.float32), 0), params, 0)
