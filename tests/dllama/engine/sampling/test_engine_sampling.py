"""What samplers remember, and what they tell, through batches and pre-emptions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dllama.engine.engine import Engine
from dllama.engine.sampling.names import DEFAULT_ORDER
from dllama.engine.sampling.sampler import Choice, Sampler
from dllama.requests import FinishReason, Output, SamplingParams, Submit
from dllama.step import LogitRow
from tests.dllama.engine.history_runner import HistoryRunner, next_state, state_logits

LIVELY: list[SamplingParams] = [
    SamplingParams(mirostat=2, mirostat_tau=4.0),
    SamplingParams(mirostat=1, temperature=1.2, presence_penalty=0.5),
    SamplingParams(dry_multiplier=0.8, dry_allowed_length=1, dry_penalty_last_n=-1, top_k=0),
    SamplingParams(xtc_probability=0.5, typical_p=0.9, dynatemp_range=0.5, frequency_penalty=0.2),
    SamplingParams(samplers=("temperature", "top_p", "penalties"), presence_penalty=0.4),
]


def drained(engine: Engine) -> dict[str, list[Output]]:
    heard: dict[str, list[Output]] = {}
    for _ in range(5000):
        if not engine.has_work():
            return heard
        for output in engine.step():
            heard.setdefault(output.id, []).append(output)
    raise AssertionError("the engine still has work after 5000 steps")


def answers(submits: list[Submit], n_pages: int, **limits: int) -> tuple[dict[str, object], int]:
    """Tokens and probabilities of each, and how often sequences were pre-empted."""
    engine = Engine(HistoryRunner(n_pages=n_pages), **limits)  # type: ignore[arg-type]
    for submit in submits:
        engine.submit(submit)
    told = {
        name: (
            [token for output in outputs for token in output.tokens],
            [probs for output in outputs for probs in output.probs or ()],
        )
        for name, outputs in drained(engine).items()
    }
    return dict(told), engine.scheduler.n_preempted


def test_alone_together_and_preempted_are_alike() -> None:
    submits = [
        Submit(f"s{i}", list(range(1, 20 + i)), replace(params, seed=i, n_probs=3), max_tokens=70)
        for i, params in enumerate(LIVELY)
    ]
    together, n_preempted = answers(submits, 7, max_step_tokens=64)
    assert n_preempted > 0, "the pool was too large for this test"
    alone: dict[str, object] = {}
    for submit in submits:
        alone |= answers([submit], 60)[0]
    assert together == alone


def test_every_told_token_has_its_probabilities_and_a_stop_has_none() -> None:
    params = SamplingParams(temperature=1.0, seed=1, n_probs=2)
    [outputs] = drained(begun(Submit("a", [1, 2], params, max_tokens=30))).values()
    tokens = [token for output in outputs for token in output.tokens]
    stop = next(token for token in tokens if token != tokens[0])
    [stopped] = drained(begun(Submit("a", [1, 2], params, stop_ids=[stop]))).values()
    assert stopped[-1].finish is FinishReason.STOP and stopped[-1].probs is None
    for output in [*outputs, *stopped]:
        if output.tokens:
            assert output.probs is not None
            assert [probs.token for probs in output.probs] == output.tokens
            assert all(len(probs.top_ids) == 2 for probs in output.probs)
    [silent] = drained(
        begun(Submit("a", [1], replace(params, n_probs=None), max_tokens=3))
    ).values()
    assert all(output.probs is None for output in silent)


class EvenTokens:
    """A grammar of even token ids, which insists on token 4 once, and its maker."""

    def __init__(self) -> None:
        self.insists = True

    def make(
        self, grammar: str, stop_ids: object, n_left: int | None = None, resume: object = None
    ) -> EvenTokens:
        return self

    @property
    def n_replaced(self) -> int:
        return not self.insists

    def mask(self) -> np.ndarray:
        return np.arange(97) % 2 == 0

    def keep(self, token: int) -> int:
        self.insists, insisted = False, self.insists
        return 4 if insisted else token

    def advance(self, token: int) -> bool:
        assert token % 2 == 0
        return True

    def close(self) -> None:
        pass


def test_log_probabilities_under_a_grammar_are_the_models_own() -> None:
    engine = Engine(HistoryRunner(n_pages=8), constraints=EvenTokens())
    params = SamplingParams(temperature=1.0, seed=3, n_probs=6)
    engine.submit(Submit("a", [1, 2, 3], params, max_tokens=20, grammar="even"))
    [outputs] = drained(engine).values()
    told = [probs for output in outputs for probs in output.probs or ()]
    assert len(told) == 20 and told[0].token == 4
    states = np.zeros(0, np.int64)
    for token in (1, 2, 3):
        states = np.append(states, next_state(states, token))
    n_odd = 0
    for probs in told:
        x = state_logits(int(states[-1]), 97).astype(np.float64)
        log_p = x - x.max() - math.log(np.exp(x - x.max()).sum())
        best = np.argsort(-log_p)[:6]
        assert probs.top_ids == best.tolist()
        np.testing.assert_allclose(probs.top_values, log_p[best], atol=1e-5)
        assert probs.value == pytest.approx(log_p[probs.token], abs=1e-5)
        n_odd += sum(token % 2 for token in probs.top_ids)
        states = np.append(states, next_state(states, probs.token))
    assert n_odd > 20, "alternatives are the model's, not the grammar's"


def begun(submit: Submit) -> Engine:
    engine = Engine(HistoryRunner(n_pages=8))
    engine.submit(submit)
    return engine


@pytest.mark.parametrize(
    ("params", "param"),
    [
        (SamplingParams(typical_p=1.5), "typical_p"),
        (SamplingParams(xtc_threshold=float("nan")), "xtc_threshold"),
        (SamplingParams(eta_cutoff=-1e-9), "eta_cutoff"),
        (SamplingParams(dry_base=0.5), "dry_base"),
        (SamplingParams(mirostat=3), "mirostat"),
        (SamplingParams(min_keep=-1), "min_keep"),
        (SamplingParams(n_probs=5000), "n_probs"),
        (SamplingParams(samplers=("magic",)), "samplers"),
        (SamplingParams(samplers=("top_k",) * 65), "samplers"),
        (SamplingParams(dry_breakers=[97]), "dry_sequence_breakers"),
        (SamplingParams(dry_phrases=[[1], []]), "dry_sequence_breakers"),
    ],
)
def test_parameters_out_of_range_are_told_by_name(params: SamplingParams, param: str) -> None:
    [[refused]] = drained(begun(Submit("a", [1], params))).values()
    assert refused.finish is FinishReason.ERROR and (refused.error or "").startswith(param)


def test_all_extremes_at_once_give_a_token() -> None:
    """The ends of every range, as the engine allows them, in any order and any of them often."""
    rng = np.random.default_rng(3)
    ends: dict[str, list[float]] = {
        "temperature": [0.0, 1e-300, 1e6], "dynatemp_range": [0.0, 1e6],
        "dynatemp_exponent": [0.0, 1e3], "typical_p": [0.0, 1.0], "eta_cutoff": [0.0, 1e-300, 1.0],
        "top_n_sigma": [-1e3, 1e3],
        "xtc_probability": [0.0, 1.0], "xtc_threshold": [0.0, 0.5], "dry_multiplier": [0.0, 1e3],
        "dry_base": [1.0, 1e3], "mirostat": [0, 1, 2], "mirostat_tau": [0.0, 1e3],
        "mirostat_eta": [0.0, 1e3], "top_p": [0.0, 1.0], "min_p": [0.0, 1.0],
        "repeat_penalty": [1e-3, 1e3], "presence_penalty": [-1e3, 1e3],
        "dry_allowed_length": [0, 2**40], "dry_penalty_last_n": [-1, 0, 2**40], "top_k": [0, 2**40],
        "repeat_last_n": [-1, 2**40], "min_keep": [0, 2**40],
    }  # fmt: skip
    for i in range(240):
        values = {name: ends[name][int(rng.integers(len(ends[name])))] for name in ends}
        params = SamplingParams(**values, seed=i, n_probs=5, post_sampling_probs=i % 2 == 0)  # type: ignore[arg-type]
        if i % 2:
            few = rng.choice(DEFAULT_ORDER, 1 + i % 3)
            order = rng.choice(few, int(rng.integers(1, 65)))
            params = replace(params, mirostat=0, samplers=tuple(map(str, order)))
            params = replace(params, logit_bias={1: 1e6, 2: -1e6})
        [outputs] = drained(begun(Submit("a", [1, 2, 1, 2], params, max_tokens=6))).values()
        assert outputs[-1].finish is FinishReason.LENGTH, outputs[-1].error


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(samplers=("penalties",) * 20 + ("min_p",), repeat_penalty=1e-3, min_p=0.05),
        SamplingParams(
            samplers=("temperature", "penalties", "min_p"), temperature=1e-30, repeat_penalty=1e-3,
            min_p=0.05, logit_bias={5: 1e6},
        ),
    ],
)  # fmt: skip
def test_logits_that_penalties_drive_apart_stay_numbers(params: SamplingParams) -> None:
    [outputs] = drained(begun(Submit("a", [1, 2, 1, 2], params, max_tokens=6))).values()
    assert outputs[-1].finish is FinishReason.LENGTH, outputs[-1].error


def test_an_error_in_a_choice_ends_one_sequence_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose = Sampler.choose

    def fails(self: Sampler, row: LogitRow, tokens: list[int], *more: LogitRow) -> Choice:
        if tokens[0] == 7:
            raise IndexError("an error of the program")
        return choose(self, row, tokens, *more)

    monkeypatch.setattr(Sampler, "choose", fails)
    engine = begun(Submit("good", [1, 2], max_tokens=4))
    engine.submit(Submit("bad", [7, 2], max_tokens=4))
    told = drained(engine)
    assert told["good"][-1].finish is FinishReason.LENGTH
    assert told["bad"][-1].finish is FinishReason.ERROR
    assert "error of the server" in (told["bad"][-1].error or "")
    assert "an error of the program" in caplog.text
    engine.scheduler.check_integrity()
