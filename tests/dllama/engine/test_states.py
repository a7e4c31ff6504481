"""Models with states: what is reused, forked, pre-empted or lost answers as a fresh run does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllama.engine.engine import Engine
from dllama.formats import open_model
from dllama.requests import SamplingParams, SessionAction, SessionCall, Submit
from dllama.runtime.local_runner import LocalRunner
from tests.dllama.engine.test_sameness import answers, ask
from tests.ranks_runner import RanksRunner
from tests.toy_models import DELTA, write_toy

CONTEXT, N_PAGES = 160, 24
GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=0.9, top_k=40, seed=5)


def words(n: int, seed: int) -> list[int]:
    return [(7 * k + 31 * seed) % 350 for k in range(n)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("states") / "toy.gguf"
    sizes = replace(DELTA["qwen35moe"], n_slots=8)
    return write_toy(
        path, arch="qwen35moe", max_seq_len=CONTEXT, hidden_dim=32, delta=sizes, seed=2
    )


@pytest.fixture(scope="module")
def runner(toy: Path) -> Iterator[RanksRunner]:
    made = RanksRunner(toy, 1, n_pages=N_PAGES)
    yield made
    made.close()


def alone(runner: RanksRunner, submit: Submit) -> list[int]:
    """What an engine of its own answers, with nothing in its cache."""
    told, n_cached = ask(Engine(runner), replace(submit, cache_prompt=False))
    assert n_cached == 0
    return told


def test_a_repeated_prompt_computes_its_last_token(runner: RanksRunner) -> None:
    """At any length of the prompt within a page."""
    for n in (1, 2, 31, 32, 33, 64, 77):
        engine, submit = Engine(runner), Submit("a", words(n, n), WARM, max_tokens=9)
        wanted = alone(runner, submit)
        assert ask(engine, submit) == (wanted, 0)
        before = runner.n_rows
        assert ask(engine, replace(submit, id="b")) == (wanted, n - 1)
        assert runner.n_rows - before == len(wanted)


def test_a_next_turn_goes_on_from_the_last_one(runner: RanksRunner) -> None:
    """Whether its answer is told again or, as thoughts are, left out."""
    engine, first = Engine(runner), Submit("a", words(50, 1), GREEDY, max_tokens=20)
    told, _ = ask(engine, first)
    chat = Submit("b", [*first.tokens, *told, *words(30, 2)], GREEDY, max_tokens=9)
    assert ask(engine, chat) == (alone(runner, chat), 50 + 20 - 1)
    other = Submit("c", [*first.tokens, *words(30, 3)], GREEDY, max_tokens=9)
    assert ask(engine, other) == (alone(runner, other), 49)


def test_what_two_prompts_share_is_kept_for_the_third(runner: RanksRunner) -> None:
    engine, head = Engine(runner), words(70, 4)
    n_cached = []
    for i in range(3):
        submit = Submit(f"p{i}", [*head, *words(20, 5 + i)], GREEDY, max_tokens=5)
        told, n = ask(engine, submit)
        n_cached.append(n)
        assert told == alone(runner, submit)
    assert n_cached == [0, 0, 70]


def test_several_answers_of_one_prompt_part_from_one_state(runner: RanksRunner) -> None:
    engine = Engine(runner)
    prompt = words(66, 9)
    seeds = [replace(WARM, seed=seed) for seed in range(4)]
    submits = [Submit(f"n{i}", prompt, seed, max_tokens=12) for i, seed in enumerate(seeds)]
    wanted = {submit.id: alone(runner, submit) for submit in submits}
    assert len({tuple(told) for told in wanted.values()}) > 1
    assert ask(engine, submits[0])[0] == wanted["n0"]
    told: dict[str, list[int]] = {submit.id: [] for submit in submits[1:]}
    for submit in submits[1:]:
        engine.submit(submit)
    before = runner.n_rows
    while engine.has_work():
        for output in engine.step():
            told[output.id] += output.tokens
        engine.scheduler.check_integrity()
    assert told == {name: answer for name, answer in wanted.items() if name != "n0"}
    assert runner.n_rows - before == 3 * 12, "nobody reads the prompt again"


@pytest.mark.parametrize("n_pages", [N_PAGES, 8, 6])
@pytest.mark.parametrize("max_batch", [16, 3])
def test_pre_emptions_and_evictions_change_no_answer(
    runner: RanksRunner, n_pages: int, max_batch: int
) -> None:
    """More sequences than slots, and fewer pages than they need."""
    submits = [
        Submit(f"s{i}", [*words(20, i // 4), *words(1 + 5 * i, i)], WARM, max_tokens=30)
        for i in range(12)
    ]
    wanted = {submit.id: alone(runner, submit) for submit in submits}
    runner.n_pages = n_pages
    try:
        assert answers(runner, submits, max_batch=max_batch, max_step_tokens=40) == wanted
    finally:
        runner.n_pages = N_PAGES


def test_after_a_loss_everything_is_computed_again(runner: RanksRunner) -> None:
    engine = Engine(runner, max_step_tokens=40)
    submits = [Submit(f"s{i}", words(30 + i, i), WARM, max_tokens=20) for i in range(4)]
    wanted = {submit.id: alone(runner, submit) for submit in submits}
    told: dict[str, list[int]] = {submit.id: [] for submit in submits}
    for submit in submits:
        engine.submit(submit)
    n_steps = 0
    while engine.has_work():
        for output in engine.step():
            told[output.id] += output.tokens
        n_steps += 1
        if n_steps in (2, 9):
            engine.suspend("a node is lost")
            engine.recover()
    assert told == wanted


def test_a_session_goes_on_and_is_forgotten(runner: RanksRunner) -> None:
    engine = Engine(runner)
    first = Submit("a", words(40, 1), GREEDY, max_tokens=10, session_id="chat")
    told, _ = ask(engine, first)
    second = replace(first, id="b", tokens=[*first.tokens, *told, *words(9, 2)])
    assert ask(engine, second) == (alone(runner, second), 49)
    call = SessionCall("1", SessionAction.ERASE, "chat", "")
    assert engine.session(call).error is None


def test_what_states_cannot_do_is_said(runner: RanksRunner) -> None:
    engine = Engine(runner)
    engine.submit(Submit("a", words(9, 1), GREEDY, max_tokens=5, context_shift=True))
    [output] = engine.step()
    assert output.error is not None and "forget" in output.error
    assert engine.stats()["speculation"] == {"drafts": 0, "drafted": 0, "accepted": 0}


def test_a_saved_session_goes_on_in_another_engine(tmp_path: Path, toy: Path) -> None:
    first = Submit("a", words(40, 1), GREEDY, max_tokens=10, session_id="chat")
    runners = [
        LocalRunner.load(
            open_model(toy), n_pages=9, max_step_tokens=64, n_threads=1, kv_dir=tmp_path
        )
        for _ in range(2)
    ]
    one, other = (Engine(each, max_step_tokens=48, session_dir=tmp_path) for each in runners)
    told, _ = ask(one, first)
    reply = one.session(SessionCall("1", SessionAction.SAVE, "chat", "file"))
    assert reply.error is None and reply.n_tokens == 49
    second = replace(first, id="b", tokens=[*first.tokens, *told, *words(9, 2)])
    wanted, _ = ask(one, replace(second, cache_prompt=False))
    for engine in (other, one):
        reply = engine.session(SessionCall("2", SessionAction.RESTORE, "chat", "file"))
        assert reply.error is None and reply.n_tokens == 49
        engine.scheduler.check_integrity()
        assert ask(engine, second) == (wanted, 49)
    (tmp_path / "file.session").unlink()
    assert other.session(SessionCall("3", SessionAction.RESTORE, "chat", "file")).error is not None
    other.scheduler.check_integrity()
    for each in runners:
        each.close()


def test_a_full_context_ends_the_answer(runner: RanksRunner) -> None:
    told, _ = ask(Engine(runner, max_step_tokens=100), Submit("a", words(150, 1), GREEDY))
    assert len(told) == CONTEXT - 150


def test_three_ranks_answer_as_one(toy: Path, runner: RanksRunner) -> None:
    submits = [Submit(f"s{i}", words(40 + i, i // 2), WARM, max_tokens=20) for i in range(6)]
    wanted = answers(runner, submits)
    ranks = RanksRunner(toy, 3, n_pages=N_PAGES)
    try:
        assert answers(ranks, submits, max_batch=3, max_step_tokens=30) == wanted
    finally:
        ranks.close()
