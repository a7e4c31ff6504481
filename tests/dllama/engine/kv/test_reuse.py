"""What is found again of a prompt: all that was ever computed of its beginning, to the token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.engine.scheduler import Scheduler
from dllama.engine.sequence import Sequence
from dllama.requests import SamplingParams, Submit
from tests.dllama.engine.days import Heard, drain, expected, prompt
from tests.dllama.engine.history_runner import HistoryRunner

GREEDY = SamplingParams(temperature=0.0)


def ask(engine: Engine, runner: HistoryRunner, submit: Submit) -> tuple[list[int], int]:
    """The answer to one request, which has to be that of an empty world, and the number of tokens
    that were found."""
    engine.submit(submit)
    heard = drain(engine)
    engine.scheduler.check_integrity()
    answer = heard.answer(submit.id)
    assert answer == expected(submit, runner)
    return answer.tokens, heard.outputs[submit.id][-1].n_cached


def n_alike(a: list[int], b: list[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def test_a_chat_with_a_changed_end_finds_all_before_the_change() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    chat = prompt(77)
    ask(engine, runner, Submit("first", chat, GREEDY, max_tokens=8))
    changed = [*chat[:51], 90, *chat[52:]]
    assert ask(engine, runner, Submit("second", changed, GREEDY, max_tokens=8))[1] == 51
    assert runner.n_copies == 1, "the page with the change is another one"


@pytest.mark.parametrize("n_answer", [1, 2, 3, 4, 40])
@pytest.mark.parametrize("n_prompt", [1, 2, 29, 32, 33, 64, 120])
def test_a_repeated_prompt_finds_all_of_itself_but_its_last_token(
    n_prompt: int, n_answer: int
) -> None:
    """Also where its answer has filled the page that it ends in."""
    runner = HistoryRunner()
    engine = Engine(runner)
    for i in range(4):
        submit = Submit(f"r{i}", prompt(n_prompt), GREEDY, max_tokens=n_answer)
        _, n_cached = ask(engine, runner, submit)
        assert n_cached == (n_prompt - 1 if i else 0)


def test_sixteen_clients_that_repeat_their_prompts_find_all_but_the_last_token() -> None:
    runner = HistoryRunner(n_pages=400)
    engine = Engine(runner)
    submits = [
        Submit(f"c{i}", [i, *prompt(119, first=i % 5)], GREEDY, max_tokens=20) for i in range(16)
    ]
    for turn in range(3):
        for submit in submits:
            engine.submit(replace(submit, id=f"{submit.id}-{turn}"))
        heard = drain(engine)
        found = [heard.outputs[f"{submit.id}-{turn}"][-1].n_cached for submit in submits]
        assert found == [119 if turn else 0] * 16
        for submit in submits:
            assert heard.answer(f"{submit.id}-{turn}") == expected(submit, runner)


def test_a_prompt_is_found_while_its_first_answer_is_still_written() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    submit = Submit("first", prompt(40), GREEDY, max_tokens=60)
    engine.submit(submit)
    heard = Heard()
    for _ in range(5):
        heard.add(engine.step())
    for name in ("second", "third"):
        engine.submit(replace(submit, id=name))
    drain(engine, heard)
    for name, n_cached in (("first", 0), ("second", 39), ("third", 39)):
        assert heard.outputs[name][0].n_cached == n_cached
        assert heard.answer(name) == expected(submit, runner)


def test_a_branch_does_not_lose_the_conversation_that_it_left() -> None:
    """An edited last question, and then the old conversation again."""
    runner = HistoryRunner()
    engine = Engine(runner)
    chat = prompt(40)
    told, _ = ask(engine, runner, Submit("a", chat, GREEDY, max_tokens=6))
    ask(engine, runner, Submit("b", [*chat[:36], 90, 91], GREEDY, max_tokens=6))
    _, n_cached = ask(engine, runner, Submit("c", [*chat, *told, 5], GREEDY, max_tokens=6))
    assert n_cached == 45


def test_a_conversation_goes_on_in_its_own_page() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    told, _ = ask(engine, runner, Submit("a", prompt(40), GREEDY, max_tokens=6))
    submit = Submit("b", [*prompt(40), *told, 5], GREEDY, max_tokens=6)
    assert ask(engine, runner, submit)[1] == 45 and runner.n_copies == 0


def test_a_full_context_is_copied_before_it_is_shifted() -> None:
    """The first conversation fills the context, and nobody else may continue its last page; the
    second has the same tokens and more, as one that was pre-empted has."""
    scheduler = Scheduler(n_pages=12, max_seq_len=128)
    kv, tokens = scheduler.kv, prompt(128)
    first = Sequence.from_submit(Submit("first", tokens[:127], GREEDY), 97, 0.0)
    assert kv.admit(first, 0)
    kv.note_computed(first, 127)
    second = Sequence.from_submit(Submit("second", tokens[:127], GREEDY), 97, 0.0)
    second.may_shift = True
    scheduler.add(second)
    second.tokens.append(tokens[127])
    batch = scheduler.schedule()
    assert batch is not None and not batch.shifts
    assert batch.copies == [[(first.pages[3], second.pages[3])], []]
    assert [(chunk.sequence.id, chunk.n) for chunk in batch.chunks] == [("second", 1)]
    kv.note_computed(second, 1)
    later = scheduler.schedule()
    assert later is not None and len(later.shifts) == 1 and not any(later.copies)


def test_what_is_private_is_neither_found_nor_told() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    private = Submit("a", prompt(40), GREEDY, max_tokens=6, cache_prompt=False)
    ask(engine, runner, private)
    assert ask(engine, runner, replace(private, id="b", cache_prompt=True))[1] == 0
    assert ask(engine, runner, replace(private, id="c"))[1] == 0


def test_a_page_is_copied_although_its_memory_is_needed_for_the_copy() -> None:
    """The pool has as many pages as the prompt needs: the copied page is given to it at once."""
    runner = HistoryRunner(n_pages=3)
    engine = Engine(runner)
    ask(engine, runner, Submit("a", prompt(70), GREEDY, max_tokens=2))
    changed = [*prompt(20), 90, *prompt(60)]
    assert ask(engine, runner, Submit("b", changed, GREEDY, max_tokens=2))[1] == 20
    assert ask(engine, runner, Submit("c", prompt(70), GREEDY, max_tokens=2))[1] == 20


def test_a_pre_empted_prompt_counts_what_it_found_at_first() -> None:
    """What it computed itself before it lost its pages was not cached."""
    runner = HistoryRunner(n_pages=5)
    engine = Engine(runner, max_step_tokens=2, max_batch=2)
    submits = [
        Submit("writes", prompt(20), GREEDY, max_tokens=70),
        Submit("reads", prompt(90, first=2), GREEDY, max_tokens=3),
    ]
    for submit in submits:
        engine.submit(submit)
    heard = drain(engine)
    assert engine.scheduler.n_preempted == 1
    assert sum(map(sum, runner.step_sizes)) < 20 + 70 + 2 * 90, "it found a page of its own"
    for submit in submits:
        assert heard.answer(submit.id) == expected(submit, runner)
        assert {output.n_cached for output in heard.outputs[submit.id]} == {0}


tokens = st.lists(st.sampled_from([3, 3, 3, 50]), min_size=1, max_size=4)
cuts = st.tuples(st.integers(0, 7), st.integers(0, 130), st.integers(1, 50), tokens)


@settings(max_examples=60, deadline=None)
@given(st.lists(cuts, min_size=1, max_size=8), st.integers(1, 40))
def test_what_is_found_is_the_longest_beginning_of_all_that_was_computed(
    made: list[tuple[int, int, int, list[int]]], n_answer: int
) -> None:
    """Every prompt begins with a part of an earlier text (prompt and answer), and goes on by
    itself; nothing is evicted. The last token of an answer was never computed."""
    runner = HistoryRunner(n_pages=200)
    engine = Engine(runner)
    computed: list[list[int]] = []
    for i, (which, n_kept, n_more, more) in enumerate(made):
        text = computed[which % len(computed)] if computed else []
        asked = [*text[:n_kept], *more, *prompt(n_more, first=more[0])]
        submit = Submit(f"s{i}", asked, GREEDY, max_tokens=n_answer)
        told, n_cached = ask(engine, runner, submit)
        known = max((n_alike(asked, text) for text in computed), default=0)
        assert n_cached == min(known, len(asked) - 1)
        computed.append([*asked, *told[:-1]])
    assert engine.scheduler.pool.n_used == 0
