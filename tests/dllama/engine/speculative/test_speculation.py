"""Guesses change how many steps an answer takes, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.constraint import Constraint
from dllama.engine.engine import Engine
from dllama.engine.kv.index import page_key
from dllama.engine.pace import Pace
from dllama.engine.speculative.draft import MAX_DRAFT
from dllama.engine.speculative.ngram import NgramDrafter
from dllama.engine.speculative.speculation import AUTO, MAX_FORCED, Speculation
from dllama.errors import ConfigError
from dllama.requests import FinishReason, Output, SamplingParams, Submit
from dllama.step import MAX_LOGIT_ROWS, PAGE_TOKENS, LogitRow, Step
from tests.dllama.engine.days import Visit, drain, live_through, visits
from tests.dllama.engine.history_runner import (
    HistoryRunner,
    check_step,
    expected_answer,
    logit_row,
    next_state,
)

GREEDY = SamplingParams(temperature=0.0)
VOCAB = 4  # so few tokens that guesses come true by chance
SAMPLINGS = [
    GREEDY,
    SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1),
    SamplingParams(temperature=0.8, top_k=3, seed=2, repeat_penalty=1.3, frequency_penalty=0.5),
    SamplingParams(temperature=1.0, seed=3, dry_multiplier=0.8, dry_penalty_last_n=-1),
    SamplingParams(temperature=1.0, seed=4, mirostat=2, mirostat_tau=1.0),
    SamplingParams(temperature=1.0, seed=5, n_probs=3),
    SamplingParams(temperature=0.0, n_probs=2, logit_bias={1: 0.5}),
]


CHANCE = np.random.default_rng(1).standard_normal((997, 97)).astype(np.float32) * 2.0


class CountingRunner(HistoryRunner):
    """A model without a memory that counts to seven again and again or, without `repeats`, says
    anything; tells a clock what its steps take."""

    def __init__(
        self, *, repeats: bool = True, row_s: float = 0.0, step_s: float = 0.02, n_pages: int = 64
    ) -> None:
        super().__init__(n_pages=n_pages, max_seq_len=n_pages * PAGE_TOKENS)
        self.repeats, self.row_s, self.step_s = repeats, row_s, step_s
        self.now_s = 0.0

    def run(self, step: Step) -> list[LogitRow]:
        self.now_s += self.step_s + self.row_s * step.n_tokens
        check_step(step, self.n_pages, 97)
        self.step_sizes.append(np.diff(step.starts).tolist())
        return [
            logit_row(self.logits(int(step.tokens[at]), int(step.positions[at])), n)
            for at, n in zip(step.logits_at.tolist(), step.candidates.tolist(), strict=True)
        ]

    def logits(self, token: int, position: int) -> np.ndarray:
        if not self.repeats:
            return np.asarray(CHANCE[(token * 31 + position * 7) % len(CHANCE)])
        return np.where(np.arange(97) == (token + 1) % 7, np.float32(9), np.float32(0))


def mixed_asks() -> list[Submit]:
    return [
        Submit(
            f"ask{i}", [(k * k + i % 3) % VOCAB for k in range(3 + 9 * i)], sampling,
            stop_ids=[3] if i % 4 == 3 else [], max_tokens=40 + 7 * i,
            context_shift=i % 2 == 1,
        )
        for i, sampling in enumerate(SAMPLINGS)
    ]  # fmt: skip


def told(outputs: list[Output]) -> list[object]:
    """All that a client hears, but for what it hears together."""
    tokens = [token for output in outputs for token in output.tokens]
    probs = [probs for output in outputs for probs in output.probs or []]
    return [tokens, probs, outputs[-1].finish, outputs[-1].n_prompt]


def guesses(engine: Engine) -> tuple[int, int]:
    """Tokens that an engine has guessed, and those that came true."""
    found = engine.stats()["speculation"]
    assert isinstance(found, dict)
    return found["drafted"], found["accepted"]


def answers(submits: list[Submit], speculate: int, **limits: Any) -> dict[str, list[object]]:
    runner = HistoryRunner(n_pages=limits.pop("n_pages", 64), vocab_size=VOCAB, max_seq_len=128)
    engine = Engine(runner, speculate=speculate, **limits)
    for submit in submits:
        engine.submit(submit)
    heard = drain(engine)
    assert not engine.has_work() and engine.scheduler.pool.n_used == 0
    return {name: told(outputs) for name, outputs in heard.outputs.items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, list[object]]:
    return answers(mixed_asks(), 0)


@pytest.mark.parametrize("speculate", [4, MAX_FORCED, AUTO])
@pytest.mark.parametrize("limits", [{}, {"n_pages": 5}, {"max_step_tokens": 9, "max_batch": 3}])
def test_answers_are_those_of_plain_decoding(
    plain: dict[str, list[object]], speculate: int, limits: dict[str, int]
) -> None:
    assert len(plain) == len(SAMPLINGS)
    assert answers(mixed_asks(), speculate, **limits) == plain


@settings(max_examples=10)
@given(
    day=visits(),
    n_pages=st.integers(4, 10),
    max_batch=st.integers(1, 5),
    spare_tokens=st.integers(0, 40),
    speculate=st.sampled_from([AUTO, 1, 2, 5, 15]),
)
def test_any_day_gives_everyone_their_answer(
    day: list[Visit], n_pages: int, max_batch: int, spare_tokens: int, speculate: int
) -> None:
    """As without speculation: arrivals, departures, pre-emptions, full contexts."""
    runner = HistoryRunner(n_pages=n_pages, vocab_size=VOCAB)
    max_step_tokens = max_batch + spare_tokens
    engine = Engine(
        runner, max_batch=max_batch, max_step_tokens=max_step_tokens, speculate=speculate
    )
    day = [replace(visit, submit=few_tokens(visit.submit)) for visit in day]
    live_through(engine, runner, day, engine.scheduler.check_integrity)
    assert all(sum(sizes) <= max_step_tokens for sizes in runner.step_sizes)


def few_tokens(submit: Submit) -> Submit:
    tokens = [token % VOCAB for token in submit.tokens]
    return replace(submit, tokens=tokens, stop_ids=[s for s in submit.stop_ids if s < VOCAB])


def test_nothing_is_published_that_was_only_guessed() -> None:
    """Whatever can be found in the cache holds the tokens that its key stands for."""
    runner = HistoryRunner(n_pages=12, vocab_size=VOCAB)
    engine = Engine(runner, max_batch=3, max_step_tokens=40, speculate=20)
    submits = [
        Submit(f"s{i}", [k % VOCAB for k in range(30 + i)], replace(SAMPLINGS[1], seed=i),
               max_tokens=150)
        for i in range(5)
    ]  # fmt: skip
    true: dict[bytes, list[int]] = {}  # key of a page, or of a part of one -> what it holds
    for submit in submits:
        tokens = [*submit.tokens, *expected_answer(submit, runner.config, 12).tokens]
        states = np.zeros(0, np.int64)
        before = b""
        for i, token in enumerate(tokens):
            states = np.append(states, next_state(states, token))
            begin = i // PAGE_TOKENS * PAGE_TOKENS
            key = page_key(before, tokens[begin : i + 1])
            true[key] = states[begin:].tolist()
            before = key if (i + 1) % PAGE_TOKENS == 0 else before
        engine.submit(submit)
    n_seen = 0
    while engine.has_work():
        engine.step()
        for page, key in engine.scheduler.pool.published().items():
            assert runner.states[page, : len(true[key])].tolist() == true[key]
            n_seen += 1
    n_drafted, n_accepted = guesses(engine)
    assert n_seen > 100 and n_drafted > n_accepted > 50


@pytest.mark.parametrize("n_sequences", [1, 4])
def test_what_repeats_itself_takes_few_steps(n_sequences: int) -> None:
    runner = CountingRunner()
    engine = Engine(runner, speculate=7)
    for i in range(n_sequences):
        engine.submit(Submit(f"s{i}", [0, 1, 2, 3, 4, 5, 6] * 3, GREEDY, max_tokens=160))
    heard = drain(engine)
    assert len(runner.step_sizes) <= 22  # a prompt, and 160 tokens of which eight come at a time
    for i in range(n_sequences):
        assert heard.answer(f"s{i}").tokens == [k % 7 for k in range(160)]
        assert sum(out.n_accepted for out in heard.outputs[f"s{i}"]) >= 138
    n_drafted, n_accepted = guesses(engine)
    assert n_drafted == n_accepted >= 138 * n_sequences
    stats: Any = engine.stats()
    assert stats["steps"]["decode_tokens"] == 159 * n_sequences  # the first is the prompt's


def test_the_draft_before_a_stop_id_is_accepted() -> None:
    engine = Engine(CountingRunner(), speculate=7)
    engine.submit(Submit("a", [0, 1, 2, 3, 4, 5, 6] * 3, GREEDY, stop_ids=[5]))
    outputs = drain(engine).outputs["a"]
    assert [token for out in outputs for token in out.tokens] == [0, 1, 2, 3, 4]
    assert outputs[-1].finish is FinishReason.STOP
    assert sum(out.n_accepted for out in outputs) == 4, "all but the prompt's own, 0"


def test_a_step_with_drafts_is_no_measurement_of_a_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[tuple[int, int]] = []
    monkeypatch.setattr(Pace, "note", lambda pace, *rows: noted.append(rows[:2]))
    engine = Engine(CountingRunner(), speculate=7)
    engine.submit(Submit("a", [0, 1, 2, 3, 4, 5, 6] * 3, GREEDY, max_tokens=160))
    drain(engine)
    assert noted == [(21, 0)], "the prompt; all other steps have drafts"


class Timed:
    """What an engine took for an answer of 800 tokens on a simulated clock."""

    def __init__(self, runner: CountingRunner, speculate: int, n_sequences: int = 1) -> None:
        engine = Engine(runner, speculate=speculate, clock=lambda: runner.now_s)
        for i in range(n_sequences):
            submit = Submit(f"s{i}", [0, 1, 2, 3, i], replace(SAMPLINGS[1], seed=i), max_tokens=800)
            engine.submit(submit)
        self.heard = drain(engine)
        self.seconds = runner.now_s
        _, self.n_accepted = guesses(engine)


@pytest.mark.parametrize("row_s", [0.0005, 0.004, 0.02])
@pytest.mark.parametrize("n_sequences", [1, 2, 8])
def test_what_does_not_repeat_itself_is_hardly_slower(row_s: float, n_sequences: int) -> None:
    """97 tokens by chance: here and there two of them have been there before."""
    plain = Timed(CountingRunner(repeats=False, row_s=row_s, n_pages=400), 0, n_sequences)
    tried = Timed(CountingRunner(repeats=False, row_s=row_s, n_pages=400), AUTO, n_sequences)
    assert tried.heard.answer("s0") == plain.heard.answer("s0")
    assert tried.seconds <= plain.seconds * 1.02


def test_it_is_off_where_no_guess_pays() -> None:
    """A row costs as much as a step: the best guess wins nothing, so few are tried."""
    runner = CountingRunner(row_s=0.02, step_s=0.0)
    auto = Timed(runner, AUTO)
    assert auto.seconds <= Timed(CountingRunner(row_s=0.02, step_s=0.0), 0).seconds * 1.02
    assert sum(1 for sizes in runner.step_sizes if max(sizes) == 2) < 25


def test_it_is_on_where_guesses_pay() -> None:
    plain = Timed(CountingRunner(row_s=0.001), 0)
    auto = Timed(CountingRunner(row_s=0.001), AUTO)
    assert auto.seconds < plain.seconds / 4 and auto.n_accepted > 600
    assert auto.heard.answer("s0") == plain.heard.answer("s0")


SKIPS = np.random.default_rng(3).random(3000) < 0.25


class SkippingRunner(CountingRunner):
    """Counts, and leaves out a number now and then: of long guesses the last tokens are seldom
    right."""

    def logits(self, token: int, position: int) -> np.ndarray:
        step = 2 if SKIPS[position] else 1
        return np.where(np.arange(97) == (token + step) % 7, np.float32(9), np.float32(0))


def test_slow_synchronisations_make_longer_guesses_pay() -> None:
    """Two clusters compute alike, 20 ms a step and 4 ms a row, and one of them takes 60 ms longer
    for the synchronisations of a step, whatever its rows: it checks more guesses at a time."""
    runners = [SkippingRunner(row_s=0.004, step_s=step_s) for step_s in (0.02, 0.08)]
    near, far = (Timed(runner, AUTO) for runner in runners)
    rows = [np.mean([sizes[0] for sizes in runner.step_sizes[100:]]) for runner in runners]
    assert rows[1] > 1.25 * rows[0]
    assert len(runners[1].step_sizes) < len(runners[0].step_sizes)
    assert near.heard.answer("s0") == far.heard.answer("s0")


def test_a_neighbour_that_nothing_is_guessed_of_is_not_held_up() -> None:
    """Beside a sequence that repeats itself, one that asks for no guesses: its steps take at most
    a quarter longer, except for the first tries."""
    runner = CountingRunner(row_s=0.002)
    engine = Engine(runner, speculate=AUTO, clock=lambda: runner.now_s)
    engine.submit(Submit("a", [0, 1, 2] * 5, GREEDY, max_tokens=1500))
    engine.submit(Submit("b", [0, 1, 2] * 5, GREEDY, max_tokens=400, draft_max=0))
    drain(engine)
    both = [sizes for sizes in runner.step_sizes[1:] if len(sizes) == 2]
    assert len(both) >= 399 and sum(sum(sizes) > 2 for sizes in both) > 300
    slow = [sizes for sizes in both if 0.02 + 0.002 * sum(sizes) > 1.25 * 0.024]
    assert len(slow) <= 2 and all(1 in sizes for sizes in both)


def test_prompts_go_on_beside_guesses() -> None:
    """Guesses take at most half of what a step has for prompts, and none of the decoding rows."""
    runner = CountingRunner(n_pages=100)
    ticks = itertools.count()  # every step takes as long: a busy machine changes no pace
    engine = Engine(
        runner, max_batch=4, max_step_tokens=12, speculate=MAX_FORCED,
        clock=lambda: float(next(ticks)),
    )  # fmt: skip
    engine.submit(Submit("a", [0, 1, 2, 3, 4, 5, 6] * 3, GREEDY, max_tokens=900))
    for _ in range(4):
        engine.step()
    engine.submit(Submit("long", [k % 90 for k in range(400)], GREEDY, max_tokens=1))
    n_before = len(runner.step_sizes)
    while not any(output.id == "long" for output in engine.step()):
        assert len(runner.step_sizes) - n_before < 200
    assert all(sum(sizes) <= 12 for sizes in runner.step_sizes)


def test_rows_of_logits_have_room() -> None:
    """Checked by the runner in every step, with as many sequences as there can be."""
    runner = CountingRunner(n_pages=200)
    engine = Engine(runner, max_batch=60, speculate=8)
    for i in range(60):
        engine.submit(Submit(f"s{i}", [0, 1, 2, 3, 4, 5, 6] * 2, GREEDY, max_tokens=60))
    drain(engine)
    assert MAX_LOGIT_ROWS in map(sum, runner.step_sizes)


def test_requests_say_what_they_want() -> None:
    def rows(engine_n: int, **wanted: object) -> int:
        runner = CountingRunner()
        engine = Engine(runner, speculate=engine_n)
        submit = Submit("a", [0, 1, 2, 3, 4, 5, 6] * 3, GREEDY, max_tokens=100)
        engine.submit(replace(submit, **wanted))  # type: ignore[arg-type]
        drain(engine)
        return max(sizes[0] for sizes in runner.step_sizes[1:])

    assert rows(5) == 6
    assert rows(5, draft_max=2) == 3
    assert rows(2, draft_max=30) == 3
    assert rows(5, draft_max=0) == 1 and rows(0, draft_max=5) == 1
    assert rows(5, draft_min=5) == 6 and rows(5, draft_min=6) == 1
    assert rows(5, draft_p_min=1.0) == 1


def test_a_drafter_goes_on_with_a_period_and_learns() -> None:
    drafter = NgramDrafter(max_tokens=9)
    tokens = [5, 6, 7, 8, 5, 6]
    first = drafter.draft(tokens, 100)
    assert first.tokens == [7, 8, 5, 6, 7, 8, 5, 6, 7]
    assert first.chances == sorted(first.chances, reverse=True) and first.chances[0] < 0.5
    for token in [7, 8, 5, 6] * 20:
        tokens.append(token)
        assert drafter.draft(tokens, 4).tokens == [tokens[len(tokens) - 4 + i] for i in range(4)]
    assert drafter.draft(tokens, 1).chances[0] > 0.95
    for token in range(100, 200):  # from now on nobody knows what comes after a second round
        for new in (token, 5, 6, 7, 8, 5, 6, 7, 8):
            tokens.append(new)
            chances = drafter.draft(tokens, 1).chances
    assert chances[0] < 0.3


def test_without_room_a_drafter_says_nothing() -> None:
    assert NgramDrafter().draft([1, 2, 1, 2], 0) == ([], [])
    assert NgramDrafter().draft([], 5) == ([], []) == NgramDrafter().draft([1], 5)
    assert len(NgramDrafter().draft([1, 2] * 9, 99).tokens) == MAX_DRAFT


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="33 tokens cannot be guessed"):
        Speculation(33)


class OddAndEven:
    """Lets even tokens follow odd ones; ends the text after `n` tokens."""

    def __init__(self, n: int) -> None:
        self._n, self._last = n, 0

    def mask(self) -> np.ndarray:
        return np.asarray(np.arange(VOCAB) % 2 != self._last % 2)

    def keep(self, token: int) -> int:
        return token

    @property
    def n_replaced(self) -> int:
        return 0

    def advance(self, token: int) -> bool:
        assert (token + self._last) % 2, "a token that the mask forbids"
        self._n, self._last = self._n - 1, token
        return self._n > 0


class OddAndEvenMaker:
    def make(
        self, grammar: str, stop_ids: object, n_left: int | None = None, resume: object = None
    ) -> Constraint:
        return OddAndEven(int(grammar))

    def close(self) -> None: ...


def test_a_grammar_is_followed_token_by_token() -> None:
    def answer(speculate: int) -> list[int]:
        runner = HistoryRunner(vocab_size=VOCAB)
        engine = Engine(runner, constraints=OddAndEvenMaker(), speculate=speculate)
        engine.submit(Submit("a", [0, 1, 2, 3] * 3, GREEDY, max_tokens=200, grammar="90"))
        heard = drain(engine)
        assert heard.answer("a").finish is FinishReason.STOP
        assert not speculate or len(runner.step_sizes) < 75
        return heard.answer("a").tokens

    plain = answer(0)
    assert len(plain) == 90 and all((a + b) % 2 for a, b in pairwise(plain))
    assert answer(4) == plain
