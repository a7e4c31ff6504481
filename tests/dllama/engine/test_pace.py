"""Prompts take the rows they are given: fairly among each other, and so few that the answers of
others keep flowing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.engine.pace import SLOWDOWN, STALE_AFTER, Pace
from dllama.engine.scheduler import fair_shares
from dllama.engine.submit_check import fitting_prompt
from dllama.kv import KvShift
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.step import LogitRow, Step
from tests.dllama.engine.history_runner import HistoryRunner

GREEDY = SamplingParams(temperature=0.0)
STEP_S, ROW_S = 0.020, 0.001  # what a step costs, and each row of a prompt on top


class TimedRunner(HistoryRunner):
    """Tells an engine's clock what its steps would take."""

    def __init__(self) -> None:
        super().__init__(n_pages=400, max_seq_len=6000)
        self.now_s = 0.0
        self.step_s: list[float] = []

    def run(self, step: Step) -> list[LogitRow]:
        spent_s = STEP_S + ROW_S * (step.n_tokens - len(step.logits_at))
        self.now_s += spent_s
        self.step_s.append(spent_s)
        return super().run(step)

    def shift(self, shift: KvShift) -> None:
        raise AssertionError("nothing is that long here")


def test_a_long_prompt_at_most_doubles_the_interval_of_the_others() -> None:
    runner = TimedRunner()
    engine = Engine(runner, max_batch=8, clock=lambda: runner.now_s)
    for i in range(4):
        engine.submit(Submit(f"s{i}", [i, 1, 2], GREEDY, max_tokens=600))
    for _ in range(20):
        engine.step()
    engine.submit(Submit("long", [k % 90 for k in range(2000)], GREEDY, max_tokens=1))
    before = len(runner.step_s)
    n_steps = 0
    while not any(output.id == "long" for output in engine.step()):
        n_steps += 1
    during = sorted(runner.step_s[before:])
    assert during[int(len(during) * 0.95)] <= SLOWDOWN * STEP_S + 1e-9 < 2.0 * STEP_S
    rows = (SLOWDOWN - 1.0) * STEP_S / ROW_S
    assert n_steps < 2000 / rows * 1.3  # and it uses what it may


def test_without_answers_prompts_get_whole_steps() -> None:
    runner = TimedRunner()
    engine = Engine(runner, clock=lambda: runner.now_s)
    engine.submit(Submit("long", [k % 90 for k in range(1000)], GREEDY, max_tokens=1))
    while engine.has_work():
        engine.step()
    assert runner.step_sizes == [[256], [256], [256], [232]]


def test_answers_alone_are_measured_again_and_again() -> None:
    pace = Pace(256)
    pace.note(0, 4, 0.02)
    rows = []
    for _ in range(3 * STALE_AFTER):
        rows.append(pace.prefill_rows(4))
        pace.note(rows[-1], 4, 0.02 + 0.001 * rows[-1])
    assert rows.count(0) == 2 and max(rows) == round((SLOWDOWN - 1.0) * 20)


def test_after_the_oldest_the_shortest_prompts_go_first() -> None:
    assert fair_shares([100, 30, 10], 60) == [30, 20, 10]
    assert fair_shares([100, 5, 10], 60) == [45, 5, 10]


def test_steps_of_another_load_are_forgotten() -> None:
    pace = Pace(1000)
    for _ in range(3):
        pace.note(0, 1, 0.01)
    pace.note(0, 8, 0.1)
    pace.note(100, 8, 0.2)  # a millisecond a row
    assert pace.prefill_rows(8) == pytest.approx((SLOWDOWN - 1.0) * 100, abs=1)


@given(pending=st.lists(st.integers(1, 300), max_size=8), budget=st.integers(0, 256))
def test_shares_are_the_budget_and_everybody_comes_to_an_end(
    pending: list[int], budget: int
) -> None:
    shares = fair_shares(pending, budget)
    assert all(0 <= share <= n for share, n in zip(shares, pending, strict=True))
    assert sum(shares) == min(budget, sum(pending))
    if pending and budget:
        assert shares[0] >= min(pending[0], (budget + 1) // 2)


def test_a_short_prompt_waits_for_no_long_one() -> None:
    runner = HistoryRunner(n_pages=100, max_seq_len=3000)
    engine = Engine(runner)
    engine.submit(Submit("long", [k % 90 for k in range(2000)], GREEDY, max_tokens=1))
    engine.step()
    for i in range(3):
        engine.submit(Submit(f"short{i}", [i] * 40, GREEDY, max_tokens=1))
    assert {output.id for output in engine.step()} == {"short0", "short1", "short2"}


@given(
    n=st.integers(1, 500), n_keep=st.integers(0, 600), max_len=st.integers(8, 200),
)  # fmt: skip
def test_a_long_prompt_keeps_its_beginning_and_its_end(n: int, n_keep: int, max_len: int) -> None:
    tokens = list(range(n))
    fitting = fitting_prompt(tokens, n_keep, max_len)
    assert 0 < len(fitting) < max(max_len, n + 1) and fitting[-1] == n - 1
    if n >= max_len:
        n_kept = min(n_keep, max_len - 4)
        assert len(fitting) < max_len and fitting[:n_kept] == tokens[:n_kept]
        longer = fitting_prompt([*tokens, 0], n_keep, max_len)
        assert longer[:-1] == fitting or len(longer) < len(fitting)


@pytest.mark.parametrize("n_before", [0, 5])
def test_a_deadline_ends_a_sequence(n_before: int) -> None:
    """With what it has, or with an error that asks to come back."""
    now = [0.0]
    engine = Engine(HistoryRunner(), clock=lambda: now[0])
    engine.submit(Submit("a", [1, 2, 3], GREEDY, max_tokens=100, deadline_s=2.0))
    engine.submit(Submit("b", [4, 5], GREEDY, max_tokens=20))
    told = [output for _ in range(n_before) for output in engine.step() if output.id == "a"]
    now[0] = 2.5
    told += [output for output in engine.step() if output.id == "a"]
    if n_before:
        assert sum(len(output.tokens) for output in told) == 5
        assert told[-1].finish is FinishReason.LENGTH
    else:
        assert told[-1].finish is FinishReason.ERROR and "time ran out" in str(told[-1].error)
        assert told[-1].retry_after_s is not None
    while engine.has_work():
        assert all(output.id == "b" for output in engine.step())
    engine.scheduler.check_integrity()
