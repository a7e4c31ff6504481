"""The sampler against the plainest float64 program that follows the definition."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.sampling.names import DEFAULT_ORDER
from dllama.engine.sampling.sampler import Sampler
from dllama.errors import DllamaError, RequestError
from dllama.requests import SamplingParams
from dllama.step import MAX_CANDIDATES, LogitRow
from tests.dllama.engine.history_runner import logit_row
from tests.dllama.engine.sampling.plain_sampler import PlainSampler, softmax

OFF = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)

usual = {
    "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7]),
    "top_k": st.sampled_from([0, 1, 2, 5, 40, 1000]),
    "top_p": st.sampled_from([0.0, 0.2, 0.9, 0.95, 1.0]),
    "min_p": st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    "repeat_penalty": st.sampled_from([1.0, 1.0, 1.2, 0.9]),
    "presence_penalty": st.sampled_from([0.0, 0.0, 0.7, -0.5]),
    "frequency_penalty": st.sampled_from([0.0, 0.0, 0.3]),
    "repeat_last_n": st.sampled_from([-1, 0, 3, 8, 64]),
    "logit_bias": st.dictionaries(
        st.integers(0, 59), st.sampled_from([-math.inf, -5.0, -0.5, 2.0]), max_size=3
    ),
    "seed": st.integers(0, 1 << 63),
}
rare = {
    "typical_p": st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.1]),
    "top_n_sigma": st.sampled_from([-1.0, -1.0, 0.5, 1.0, 2.0]),
    "eta_cutoff": st.sampled_from([0.0, 0.0, 3e-4, 0.02, 0.3, 1.0]),
    "xtc_probability": st.sampled_from([0.0, 0.5, 1.0]),
    "xtc_threshold": st.sampled_from([0.01, 0.1, 0.3, 0.6]),
    "dynatemp_range": st.sampled_from([0.0, 0.0, 0.5, 2.0]),
    "dynatemp_exponent": st.sampled_from([1.0, 2.0, 0.5]),
    "dry_multiplier": st.sampled_from([0.0, 0.8, 3.0]),
    "dry_base": st.sampled_from([1.0, 1.75, 3.0]),
    "dry_allowed_length": st.sampled_from([0, 1, 2, 3]),
    "dry_penalty_last_n": st.sampled_from([-1, 0, 5, 64]),
    "dry_breakers": st.lists(st.integers(0, 5), max_size=1),
    "dry_phrases": st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=3), max_size=2),
    "min_keep": st.sampled_from([0, 0, 1, 4]),
}
# Each at most once: temperatures near zero, one on another, leave the oracle's float32.
chains = st.just(DEFAULT_ORDER) | st.lists(
    st.sampled_from(DEFAULT_ORDER), max_size=10, unique=True
).map(tuple)
any_params = st.builds(
    SamplingParams, **usual, **rare, samplers=chains, mirostat=st.sampled_from([0, 0, 0, 1, 2]),
    mirostat_tau=st.sampled_from([1.0, 3.0, 5.0]),
)  # fmt: skip
histories = st.lists(st.integers(0, 59) | st.integers(0, 3), max_size=40)


def agrees(params: SamplingParams, logits_seed: int, is_coarse: bool, tokens: list[int]) -> None:
    """Three choices in a row, from whole rows and, where that is enough, from candidates."""
    rng = np.random.default_rng(logits_seed)
    plain, whole, listed = PlainSampler(params), Sampler(params, 60), Sampler(params, 60)
    tokens = list(tokens)
    for _ in range(3):
        logits = rng.normal(size=60).astype(np.float32) * 2
        if is_coarse:
            logits = np.round(logits).astype(np.float32)
        expected = plain.choose(logits, tokens)
        assert whole.choose(logit_row(logits, 0), tokens).token == expected
        n = listed.n_candidates
        if n:
            extra = len(tokens) % 4  # more than is asked for changes nothing
            assert listed.choose(logit_row(logits, n + extra), tokens).token == expected
        tokens.append(expected)


@settings(max_examples=300)
@given(
    params=st.builds(SamplingParams, **usual),
    logits_seed=st.integers(0, 1000),
    is_coarse=st.booleans(),
    tokens=histories,
)
def test_the_usual_samplers_are_the_definitions(
    params: SamplingParams, logits_seed: int, is_coarse: bool, tokens: list[int]
) -> None:
    agrees(params, logits_seed, is_coarse, tokens)


@settings(max_examples=500)
@given(params=any_params, logits_seed=st.integers(0, 1000), tokens=histories)
def test_all_samplers_in_any_order_are_the_definitions(
    params: SamplingParams, logits_seed: int, tokens: list[int]
) -> None:
    agrees(params, logits_seed, False, tokens)


@settings(max_examples=100)
@given(params=any_params, logits_seed=st.integers(0, 1000), tokens=histories)
def test_each_sampler_alone_leaves_what_its_definition_leaves(
    params: SamplingParams, logits_seed: int, tokens: list[int]
) -> None:
    """Tokens and probabilities, not only the choice."""
    logits = np.random.default_rng(logits_seed).normal(size=60).astype(np.float32) * 2
    for name in DEFAULT_ORDER:
        alone = replace(params, samplers=(name,), mirostat=0, n_probs=60, post_sampling_probs=True)
        plain = PlainSampler(alone)
        plain.choose(logits, tokens)
        probs = Sampler(alone, 60).choose(logit_row(logits, 0), tokens).probs
        assert probs is not None
        expected = [(t, p) for (_, t), p in zip(plain.pool, softmax(plain.pool), strict=True)]
        assert sorted(probs.top_ids) == sorted(t for t, p in expected if p > 0)
        np.testing.assert_allclose(probs.top_values, [p for _, p in expected if p > 0], rtol=1e-6)


WIDE = [
    OFF,
    replace(OFF, temperature=0.7, top_p=0.9),
    replace(OFF, temperature=3.0, top_p=0.999),
    replace(OFF, temperature=0.7, top_p=0.9, min_p=0.05),
    replace(OFF, temperature=0.7, top_p=0.999, min_p=0.9),
    SamplingParams(temperature=0.7, top_k=40),
    SamplingParams(temperature=0.7, top_k=5000, min_p=0.0),
    SamplingParams(temperature=0.7, top_k=0, logit_bias={5: -math.inf, 6: 9.0}),
    replace(OFF, top_n_sigma=1.5),
    replace(OFF, typical_p=0.7),
    replace(OFF, typical_p=0.1, min_keep=6000),
    replace(OFF, top_p=0.1, min_p=0.9, min_keep=5000),
    replace(OFF, eta_cutoff=2e-3),
    replace(OFF, eta_cutoff=0.5, min_keep=5000),
    replace(OFF, xtc_probability=1.0, xtc_threshold=1e-4),
    replace(OFF, dynatemp_range=0.5),
    replace(OFF, mirostat=1, mirostat_tau=4.0),
    replace(OFF, mirostat=2, mirostat_tau=7.0),
    replace(OFF, top_k=200, samplers=("temperature", "min_p", "top_k", "penalties"), min_p=0.01,
            presence_penalty=0.5),
]  # fmt: skip


@pytest.mark.parametrize("spread", [8.0, 1.0, 0.1])
@pytest.mark.parametrize("params", WIDE)
def test_a_wide_vocabulary_is_sampled_alike(params: SamplingParams, spread: float) -> None:
    """More logits than are ever sorted at once: bins find the same token as a full sort."""
    logits = (np.random.default_rng(7).normal(size=8011) * spread).astype(np.float32)
    logits[100] = -np.inf
    plain, sampler = PlainSampler(params), Sampler(params, len(logits))
    row, tokens = logit_row(logits, 0), [3, 4, 5]
    for _ in range(2):
        expected = plain.choose(logits, tokens)
        assert sampler.choose(row, tokens).token == expected
        tokens.append(expected)


@pytest.mark.parametrize("params", [OFF, replace(OFF, top_p=0.5), replace(OFF, mirostat=2)])
def test_a_wide_flat_row(params: SamplingParams) -> None:
    """All alike: the order is that of the ids, and a share of the probability is one of the ids."""
    logits = np.zeros(10_000, np.float32)
    sampler = Sampler(params, 10_000)
    chosen = [sampler.choose(logit_row(logits, 0), [0] * n).token for n in range(200)]
    assert len(set(chosen)) > 150
    assert (max(chosen) <= 5000) == (params.top_p < 1.0)


def shares(params: SamplingParams, p: list[float], n: int = 6000) -> np.ndarray:
    """How often each token is chosen, from logits log(p)."""
    row = logit_row(np.log(np.array(p, np.float32)), 0)
    sampler = Sampler(params, len(p))
    tokens: list[int] = []
    counts: Counter[int] = Counter()
    for _ in range(n):
        counts[sampler.choose(row, tokens).token] += 1
        tokens.append(0)
    return np.array([counts[i] for i in range(len(p))])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (OFF, [0.4, 0.3, 0.15, 0.1, 0.05]),
        (replace(OFF, temperature=0.5, top_k=3), [0.16, 0.09, 0.0225, 0, 0]),
        (replace(OFF, top_p=0.69), [0.4, 0.3, 0, 0, 0]),
        (replace(OFF, min_p=0.3), [0.4, 0.3, 0.15, 0, 0]),
        (replace(OFF, xtc_probability=1.0, xtc_threshold=0.12), [0, 0, 0.15, 0.1, 0.05]),
        # Half of the time all, half of the time what is left without the top choices.
        (
            replace(OFF, xtc_probability=0.5, xtc_threshold=0.12),
            [0.2, 0.15, 0.075 + 0.25, 0.05 + 1 / 6, 0.025 + 1 / 12],
        ),
        # The entropy is 1.39 nat: the surprise of 0.3 (1.20) is nearest, then that of 0.4 (0.92).
        (replace(OFF, typical_p=0.6), [0.4, 0.3, 0, 0, 0]),
        # The entropy is 1.39 nat, so that eta is sqrt(0.2) * exp(-1.39) = 0.111.
        (replace(OFF, eta_cutoff=0.2), [0.4, 0.3, 0.15, 0, 0]),
        (replace(OFF, eta_cutoff=0.07), [0.4, 0.3, 0.15, 0.1, 0]),
        (replace(OFF, samplers=()), [0.4, 0.3, 0.15, 0.1, 0.05]),
    ],
)
def test_draws_follow_the_probabilities(params: SamplingParams, expected: list[float]) -> None:
    found = shares(params, [0.4, 0.3, 0.15, 0.1, 0.05])
    wanted = np.array(expected) / sum(expected) * 6000
    assert not found[wanted == 0].any()
    some = wanted > 0
    assert float(((found[some] - wanted[some]) ** 2 / wanted[some]).sum()) < 18.5  # 99.9 %


def test_mirostat_reaches_its_surprise() -> None:
    """Zipf's law over 2,000 tokens: the mean surprise of the choices nears tau."""
    p = 1.0 / np.arange(1, 2001)
    p /= p.sum()
    row = logit_row(np.log(p).astype(np.float32), 0)
    for version in (1, 2):
        params = replace(OFF, mirostat=version, mirostat_tau=3.0, n_probs=0,
                         post_sampling_probs=True)  # fmt: skip
        sampler = Sampler(params, 2000)
        surprises = []
        for n in range(1500):
            probs = sampler.choose(row, [0] * n).probs
            assert probs is not None
            surprises.append(-math.log2(probs.value))
        assert abs(float(np.mean(surprises[300:])) - 3.0) < 0.1


def test_the_same_tokens_make_the_same_choices_again() -> None:
    """What a sampler remembers follows from its sequence, one token or many at a time."""
    params = SamplingParams(
        temperature=1.2, seed=9, dry_multiplier=0.8, dry_penalty_last_n=-1, frequency_penalty=0.2
    )
    rng = np.random.default_rng(1)
    rows = [logit_row(rng.normal(size=30).astype(np.float32), 0) for _ in range(60)]
    tokens = rng.integers(0, 4, 50).tolist()
    first = Sampler(params, 30)
    for row in rows:
        tokens.append(first.choose(row, tokens).token)
    for n in (0, 20, 59):  # others that begin later, with the whole of what was said
        assert Sampler(params, 30).choose(rows[n], tokens[: 50 + n]).token == tokens[50 + n]


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    greedy = Sampler(SamplingParams(temperature=0.0), 4)
    assert greedy.choose(logit_row(logits, 0), []).token == 1
    assert greedy.choose(logit_row(logits, 1), []).token == 1


def test_temperature_zero_takes_the_best_of_what_is_left() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.1, 0.1], np.float32))
    params = SamplingParams(temperature=0.0, xtc_probability=1.0, xtc_threshold=0.2)
    assert Sampler(params, 4).choose(logit_row(logits, 0), []).token == 1


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (SamplingParams(), 40),
        (SamplingParams(temperature=0.0, top_k=0), 1),
        (SamplingParams(temperature=0.0, top_k=0, top_n_sigma=1.0), 1),
        (SamplingParams(temperature=0.0, repeat_penalty=1.1), 65),
        (SamplingParams(temperature=0.0, top_k=0, eta_cutoff=0.01), 1),
        (SamplingParams(temperature=0.0, typical_p=0.5), 40),
        (SamplingParams(temperature=0.0, dynatemp_range=0.5), 40),
        (SamplingParams(temperature=0.0, xtc_probability=0.5), 40),
        (SamplingParams(top_k=MAX_CANDIDATES), MAX_CANDIDATES),
        (SamplingParams(top_k=MAX_CANDIDATES + 1), 0),
        (SamplingParams(top_k=0), 0),
        (SamplingParams(top_k=40, repeat_penalty=1.1), 104),
        (SamplingParams(top_k=40, dry_multiplier=0.8), 104),
        (SamplingParams(top_k=40, dry_multiplier=0.8, dry_penalty_last_n=-1), 0),
        (SamplingParams(top_k=200, repeat_penalty=1.1), 0),
        (SamplingParams(repeat_penalty=1.1, repeat_last_n=-1), 0),
        (SamplingParams(repeat_penalty=0.9), 0),
        (SamplingParams(logit_bias={1: 1.0}), 0),
        (SamplingParams(logit_bias={1: -1.0}), 41),
        (SamplingParams(top_n_sigma=1.0), 0),
        (SamplingParams(mirostat=2), 0),
        (SamplingParams(samplers=("top_p", "top_k")), 0),
        (SamplingParams(samplers=("top_k", "penalties"), repeat_penalty=1.1), 40),
        (SamplingParams(typical_p=0.5, xtc_probability=0.5, dynatemp_range=0.2), 40),
        (SamplingParams(temperature=0.0, n_probs=20), 20),
        (SamplingParams(n_probs=20), 40),
        (SamplingParams(n_probs=MAX_CANDIDATES + 1), 0),
    ],
)
def test_how_many_candidates_are_wanted(params: SamplingParams, wanted: int) -> None:
    assert Sampler(params, 10_000).n_candidates == wanted
    assert Sampler(params, 40).n_candidates in (wanted if wanted < 40 else 0,)


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 1e6])
def test_extreme_temperatures_are_numbers(temperature: float) -> None:
    logits = np.array([3.0, 2.0, 3.0, -np.inf], np.float32)
    for top_k in (0, 3):
        sampler = Sampler(replace(OFF, temperature=temperature, top_k=top_k), 4)
        chosen = {sampler.choose(logit_row(logits, 0), [0] * n).token for n in range(60)}
        assert chosen == ({0, 2} if temperature < 1.0 else {0, 1, 2})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad: float) -> None:
    row = LogitRow(None, np.array([bad, 1.0], np.float32), bad)
    with pytest.raises(DllamaError, match="not numbers"):
        Sampler(SamplingParams(), 2).choose(row, [])


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forbidding_everything_is_an_error(temperature: float, top_k: int) -> None:
    bias = {0: -math.inf, 1: -math.inf}
    params = SamplingParams(temperature=temperature, top_k=top_k, logit_bias=bias)
    with pytest.raises(RequestError, match="forbids every token"):
        Sampler(params, 2).choose(logit_row(np.zeros(2, np.float32), 0), [])
