"""A second model guesses: how many steps an answer takes changes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.engine.engine import Engine
from dllama.engine.speculative.draft import HitRates
from dllama.engine.speculative.model_drafter import DraftModel, ModelDrafter
from dllama.engine.speculative.speculation import AUTO, MAX_FORCED, Speculation
from dllama.errors import ConfigError
from dllama.requests import SamplingParams, Submit
from dllama.runtime.local_runner import LocalRunner
from dllama.step import Step
from tests.dllama.engine.days import Heard, Visit, drain, live_through, visits
from tests.dllama.engine.history_runner import HistoryRunner
from tests.dllama.engine.speculative.test_speculation import (
    GREEDY,
    VOCAB,
    CountingRunner,
    few_tokens,
    guesses,
    mixed_asks,
    told,
)
from tests.local_model import local_runner
from tests.toy_models import write_toy

PROMPT = [0, 1, 2, 3, 4, 5, 6]
WORDS: list[int] = np.random.default_rng(7).integers(0, 97, 20_000).tolist()


class OtherRunner(HistoryRunner):
    """Keeps its pages like a HistoryRunner, and says something else."""

    def compute(self, step: Step, row: int) -> int:
        return super().compute(step, row) ^ 1


class SureRunner(CountingRunner):
    """Says WORDS, whatever came, and is sure of them: what stood before tells nothing."""

    def logits(self, token: int, position: int) -> np.ndarray:
        if not self.repeats:
            return super().logits(token, position)
        return np.where(np.arange(97) == WORDS[position + 1], np.float32(9), np.float32(0))


def draft_model(
    runner: HistoryRunner | LocalRunner, *, max_tokens: int = 8, max_rows: int = 64
) -> DraftModel:
    return DraftModel(runner, max_tokens=max_tokens, max_rows=max_rows)


def check(model: DraftModel, engine: Engine) -> None:
    """Pages are owned by sequences that run, and by nobody twice."""
    drafters = [sequence.drafter for sequence in engine.scheduler.running]
    model.kv.check_integrity([d.sequence for d in drafters if isinstance(d, ModelDrafter)])


def answers(
    submits: list[Submit], model: DraftModel | None = None, speculate: int = MAX_FORCED,
    **limits: Any,
) -> tuple[dict[str, list[object]], Engine]:  # fmt: skip
    runner = HistoryRunner(n_pages=limits.pop("n_pages", 64), vocab_size=VOCAB, max_seq_len=128)
    ticks = count()  # so that steps, and who has a share in them, are the same every time
    engine = Engine(
        runner, speculate=speculate if model else 0, draft_model=model,
        clock=lambda: float(next(ticks)), **limits,
    )  # fmt: skip
    for submit in submits:
        engine.submit(submit)
    heard = Heard()
    while engine.has_work():
        heard.add(engine.step())
        if model:
            check(model, engine)
    assert model is None or model.kv.pool.n_used == 0
    return {name: told(outputs) for name, outputs in heard.outputs.items()}, engine


@pytest.fixture(scope="module")
def plain() -> dict[str, list[object]]:
    return answers(mixed_asks())[0]


@pytest.mark.parametrize("kind", [HistoryRunner, OtherRunner])
@pytest.mark.parametrize("limits", [{}, {"n_pages": 5}, {"max_step_tokens": 9, "max_batch": 3}])
@pytest.mark.parametrize(("n_pages", "context"), [(64, 128), (64, 50), (5, 128)])
def test_answers_are_those_of_plain_decoding(
    plain: dict[str, list[object]], kind: type[HistoryRunner], limits: dict[str, int],
    n_pages: int, context: int,
) -> None:  # fmt: skip
    """Whether the model is the same or another one, with pre-emptions, and where the small model
    has few pages or a shorter context."""
    small = kind(n_pages=n_pages, vocab_size=VOCAB, max_seq_len=context)
    max_rows = limits.get("max_step_tokens", 64)
    found, engine = answers(mixed_asks(), draft_model(small, max_rows=max_rows), **limits)
    assert found == plain
    n_drafted, n_accepted = guesses(engine)
    assert n_drafted > n_accepted > 0
    assert all(sum(sizes) <= max_rows for sizes in small.step_sizes)
    assert not limits.get("n_pages") or engine.scheduler.n_preempted > 0


@settings(max_examples=10)
@given(
    day=visits(),
    n_pages=st.integers(4, 10),
    n_small_pages=st.integers(1, 20),
    max_batch=st.integers(1, 5),
    spare_tokens=st.integers(0, 40),
    max_tokens=st.sampled_from([1, 2, 8]),
)
def test_any_day_gives_everyone_their_answer(
    day: list[Visit], n_pages: int, n_small_pages: int, max_batch: int, spare_tokens: int,
    max_tokens: int,
) -> None:  # fmt: skip
    """Arrivals, departures, pre-emptions, full contexts; all pages come back."""
    runner = HistoryRunner(n_pages=n_pages, vocab_size=VOCAB)
    max_rows = max_batch + spare_tokens
    small = HistoryRunner(n_pages=n_small_pages, vocab_size=VOCAB)
    model = draft_model(small, max_tokens=max_tokens, max_rows=max_rows)
    engine = Engine(
        runner, max_batch=max_batch, max_step_tokens=max_rows, speculate=8, draft_model=model
    )
    day = [replace(visit, submit=few_tokens(visit.submit)) for visit in day]
    live_through(engine, runner, day, lambda: check(model, engine))
    assert model.kv.pool.n_used == 0


@pytest.mark.parametrize("n_sequences", [1, 4])
def test_true_guesses_take_few_steps_for_all_together(n_sequences: int) -> None:
    runner, small = SureRunner(), SureRunner()
    model = draft_model(small, max_tokens=7)
    engine = Engine(runner, speculate=MAX_FORCED, draft_model=model)
    for i in range(n_sequences):
        engine.submit(Submit(f"s{i}", WORDS[: 3 + i], GREEDY, max_tokens=161))
    heard = drain(engine)
    assert all(len(heard.answer(f"s{i}").tokens) == 161 for i in range(n_sequences))
    assert len(runner.step_sizes) <= 22  # of which each brings eight tokens
    assert len(small.step_sizes) <= 7 * 22  # one for each token, however many sequences
    report = engine.stats()["speculation"]
    assert isinstance(report, dict)
    assert report["drafted"] == report["accepted"] == n_sequences * 140


def test_only_what_is_new_is_computed() -> None:
    """The prompt once, each guess once, and after a guess that came true only its last token and
    the newest; a next turn finds what was computed."""
    small = HistoryRunner(vocab_size=VOCAB)
    model = draft_model(small, max_tokens=4)
    engine = Engine(HistoryRunner(vocab_size=VOCAB), speculate=4, draft_model=model)
    first = Submit("a", [i % 3 for i in range(70)], GREEDY, max_tokens=41)
    engine.submit(first)
    answer = drain(engine).answer("a").tokens
    read = [sizes[0] for sizes in small.step_sizes if sizes[0] > 1]
    assert read[:2] == [64, 8] and set(read[2:]) <= {2}
    del small.step_sizes[:]
    engine.submit(Submit("b", [*first.tokens, *answer, 1, 2, 0], GREEDY, max_tokens=20))
    drain(engine)
    assert small.step_sizes[0][0] < 20


def test_a_full_context_has_no_guesses() -> None:
    small = SureRunner(n_pages=2)  # 64 tokens
    model = draft_model(small, max_tokens=7)
    runner = SureRunner()
    engine = Engine(runner, speculate=7, draft_model=model)
    engine.submit(Submit("a", WORDS[:7], GREEDY, max_tokens=200))
    while len(engine.scheduler.running) == 0 or len(engine.scheduler.running[0].tokens) <= 64:
        engine.step()
    engine.step()
    n_before = len(small.step_sizes)
    assert model.kv.pool.n_used == 0 and n_before > 40
    drain(engine)
    assert len(small.step_sizes) == n_before


def test_without_pages_there_are_no_guesses_until_some_are_free() -> None:
    """Room for one sequence: the other is guessed of when that one has ended."""
    small = SureRunner(n_pages=3)
    model = draft_model(small, max_tokens=4)
    engine = Engine(SureRunner(), speculate=4, draft_model=model)
    engine.submit(Submit("a", WORDS[:70], GREEDY, max_tokens=20))
    engine.submit(Submit("b", WORDS[:35], GREEDY, max_tokens=60))
    heard = drain(engine)
    assert WORDS[35:95] == heard.answer("b").tokens
    of_b = [output.n_drafted for output in heard.outputs["b"]]
    assert of_b[1] == 0 < max(of_b[-8:])
    assert sum(output.n_drafted for output in heard.outputs["a"]) > 0


def test_whoever_leaves_gives_the_pages_back() -> None:
    clock = [0.0]
    model = draft_model(SureRunner())
    engine = Engine(SureRunner(), speculate=8, draft_model=model, clock=lambda: clock[0])
    engine.submit(Submit("aborted", WORDS[:7], GREEDY, max_tokens=500))
    engine.submit(Submit("late", WORDS[:14], GREEDY, max_tokens=500, deadline_s=5.0))
    for _ in range(4):
        engine.step()
    assert model.kv.pool.n_used >= 2
    engine.abort("aborted")
    check(model, engine)
    clock[0] = 6.0
    engine.step()
    assert not engine.has_work() and model.kv.pool.n_used == 0


def test_requests_say_what_they_want() -> None:
    def rows(**wanted: object) -> int:
        runner = SureRunner()
        engine = Engine(runner, speculate=5, draft_model=draft_model(SureRunner()))
        submit = Submit("a", WORDS[:21], GREEDY, max_tokens=100)
        engine.submit(replace(submit, **wanted))  # type: ignore[arg-type]
        drain(engine)
        return max(sizes[0] for sizes in runner.step_sizes[1:])

    assert rows() == 6
    assert rows(draft_max=2) == 3 and rows(draft_max=30) == 6 and rows(draft_max=0) == 1
    assert rows(draft_min=5) == 6 and rows(draft_min=6) == 1
    assert rows(draft_p_min=0.9) == 6 and rows(draft_p_min=1.0) == 1


class Timed:
    """What an engine took for answers of 800 tokens on a simulated clock."""

    def __init__(
        self, small: CountingRunner | None, n_sequences: int, *, auto: bool | None = None,
        kind: type[CountingRunner] = SureRunner,
    ) -> None:  # fmt: skip
        runner = kind(row_s=0.001, n_pages=400)
        prompt = WORDS if kind is SureRunner else PROMPT
        clocks = [runner, small or runner]
        engine = Engine(
            runner, speculate=AUTO if small or auto else 0,
            draft_model=draft_model(small, max_rows=256) if small else None,
            clock=lambda: sum(one.now_s for one in set(clocks)),
        )  # fmt: skip
        for i in range(n_sequences):
            engine.submit(Submit(f"s{i}", prompt[: 2 + i % 4], GREEDY, max_tokens=800))
        self.heard = drain(engine)
        self.seconds = float(str(engine.stats()["uptime_s"]))
        _, self.n_accepted = guesses(engine)


@pytest.mark.parametrize("n_sequences", [1, 4])
def test_auto_guesses_where_that_pays(n_sequences: int) -> None:
    plain = Timed(None, n_sequences)
    auto = Timed(SureRunner(step_s=0.002, row_s=0.0001, n_pages=400), n_sequences)
    assert auto.heard.answer("s0") == plain.heard.answer("s0")
    assert auto.seconds < plain.seconds / 1.6 and auto.n_accepted > 500 * n_sequences


def test_auto_tries_what_stood_before_first() -> None:
    """Where an answer repeats itself a model is not asked, however good."""
    alone = Timed(None, 1, auto=True, kind=CountingRunner)
    small = CountingRunner(step_s=0.005, n_pages=400)
    both = Timed(small, 1, kind=CountingRunner)
    assert both.heard.answer("s0") == alone.heard.answer("s0")
    assert both.seconds < alone.seconds * 1.05 and small.now_s < 0.1


class Mistaken(SureRunner):
    """Is as sure as the other, and always wrong."""

    def logits(self, token: int, position: int) -> Any:
        return super().logits(token, position + 3)


@pytest.mark.parametrize("n_sequences", [1, 4])
@pytest.mark.parametrize("step_s", [0.002, 0.02])
@pytest.mark.parametrize("kind", [SureRunner, Mistaken])
def test_auto_is_hardly_slower_where_it_does_not_pay(
    n_sequences: int, step_s: float, kind: type[SureRunner]
) -> None:
    """A model that knows nothing, one that is always wrong, and one as slow as the other."""
    repeats = kind is Mistaken or step_s == 0.02
    small = kind(repeats=repeats, step_s=step_s, row_s=0.0001, n_pages=400)
    plain, auto = Timed(None, n_sequences), Timed(small, n_sequences)
    assert auto.heard.answer("s0") == plain.heard.answer("s0")
    assert auto.seconds <= plain.seconds * 1.03


def test_chances_are_what_came_true() -> None:
    """At first what was thought; then what came, for each kind of guess by itself."""
    right, wrong = HitRates([0.1, 0.55]), HitRates([0.1, 0.55])
    assert right.of(1) == 0.55
    for _ in range(20):
        right.learn(1, True)
        wrong.learn(1, False)
    assert right.of(1) > 0.9 and wrong.of(1) < 0.1
    assert right.of(0) == wrong.of(0) == 0.1


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="33 tokens cannot be guessed"):
        Speculation(AUTO, draft_model(SureRunner(), max_tokens=33))


# ---- the real forward pass
@pytest.fixture(scope="module")
def large() -> Iterator[LocalRunner]:
    with local_runner(DEFAULT_MODEL, n_pages=64) as runner:
        yield runner


@pytest.fixture(scope="module")
def stranger(large: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRunner]:
    """Random weights, the same number of tokens."""
    path: Path = tmp_path_factory.mktemp("stranger") / "toy.gguf"
    with local_runner(write_toy(path, vocab_size=large.config.vocab_size), n_pages=64) as runner:
        yield runner


def real_answers(large: LocalRunner, small: LocalRunner | None) -> tuple[list[object], Engine]:
    model = draft_model(small, max_rows=100) if small else None
    ticks = count()
    engine = Engine(
        large, max_step_tokens=100, speculate=8 if model else 0, draft_model=model,
        clock=lambda: float(next(ticks)),
    )  # fmt: skip
    params = [GREEDY, SamplingParams(temperature=0.7, seed=3), SamplingParams(temperature=0.0)]
    for i, sampling in enumerate(params):
        tokens = [(17 * k + i) % 900 + 20 for k in range(40 + 70 * i)]
        engine.submit(Submit(f"s{i}", tokens, sampling, max_tokens=60))
    heard = drain(engine)
    assert model is None or model.kv.pool.n_used == 0
    return [heard.answer(f"s{i}") for i in range(len(params))], engine


def test_a_model_is_its_own_draft_model(large: LocalRunner) -> None:
    """Nearly all that it is sure of comes true, chosen or drawn by chance."""
    plain, _ = real_answers(large, None)
    with local_runner(DEFAULT_MODEL, n_pages=64) as small:
        found, engine = real_answers(large, small)
    assert found == plain
    n_drafted, n_accepted = guesses(engine)
    assert n_accepted > 0.75 * n_drafted > 0


def test_a_stranger_changes_nothing(large: LocalRunner, stranger: LocalRunner) -> None:
    plain, _ = real_answers(large, None)
    found, engine = real_answers(large, stranger)
    assert found == plain  # what comes true was guessed from what stood before
    n_drafted, n_accepted = guesses(engine)
    assert n_accepted <= 0.4 * n_drafted


def test_a_drafter_may_be_asked_alone() -> None:
    drafter = Speculation(5, draft_model(CountingRunner())).drafter_for(Submit("a", PROMPT, GREEDY))
    assert drafter is not None
    tokens = list(PROMPT)
    draft = drafter.draft(tokens, 99)
    assert draft.tokens == [0, 1, 2, 3, 4] and draft.chances == sorted(draft.chances)[::-1]
    assert drafter.draft(tokens, 99) == ([], []), "nothing has come since"
    tokens += [0, 1, 5]
    assert drafter.draft(tokens, 2).tokens == [6, 0] and drafter.draft(tokens, 0) == ([], [])
    drafter.leave()
    assert drafter.draft(tokens, 3).tokens == [6, 0, 1]
