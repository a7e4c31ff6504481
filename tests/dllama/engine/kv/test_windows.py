"""Pages of layers with a window: given back behind it, found where a window is whole, and what
others compute stays what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.engine.kv.layer_pages import LayerPages
from dllama.engine.speculative.speculation import AUTO
from dllama.requests import SamplingParams, Submit
from dllama.step import PAGE_TOKENS
from dllama.windows import window_span
from tests.dllama.engine.days import Heard, Visit, drain, expected, live_through, prompt, visits
from tests.dllama.engine.kv.test_reuse import ask
from tests.dllama.engine.window_runner import WindowRunner

GREEDY = SamplingParams(temperature=0.0)


def windows_of(engine: Engine) -> LayerPages:
    windows = engine.scheduler.kv.windows
    assert windows is not None
    return windows


@settings(max_examples=40, deadline=None)
@given(
    day=visits(),
    n_pages=st.integers(4, 10),
    window=st.sampled_from([1, 2, 31, 33, 34, 64, 90, 200]),
    max_batch=st.integers(1, 5),
    spare_tokens=st.integers(0, 40),
    speculate=st.sampled_from([0, 3, AUTO]),
    loses=st.booleans(),
)
def test_any_day_gives_everyone_their_answer(
    day: list[Visit], n_pages: int, window: int, max_batch: int, spare_tokens: int, speculate: int,
    loses: bool,
) -> None:  # fmt: skip
    """Arrivals, departures, shifts, drafts, pre-emptions over small pools: every row finds what it
    sees, and all answers are those of an empty world."""
    rows = max_batch + spare_tokens
    runner = WindowRunner(window, n_pages=n_pages, max_step_tokens=rows)
    engine = Engine(runner, max_batch=max_batch, max_step_tokens=rows, speculate=speculate)
    live_through(engine, runner, day, engine.scheduler.check_integrity)
    assert windows_of(engine).pool.n_used == 0


@pytest.mark.parametrize("window", [1, 20, 33, 100])
def test_pages_in_use_are_bounded_by_the_window(window: int) -> None:
    """Whatever the prompt and the answer are; drafts and steps of 64 rows come on top."""
    runner = WindowRunner(window, n_pages=64, max_seq_len=2000)
    engine = Engine(runner, max_step_tokens=64)
    submit = Submit("long", prompt(1200), GREEDY, max_tokens=300)
    engine.submit(submit)
    n_most = n_full = 0
    while engine.has_work():
        engine.step()
        n_most = max(n_most, windows_of(engine).pool.n_used)
        n_full = max(n_full, engine.scheduler.pool.n_used)
    assert n_full == 1500 // PAGE_TOKENS + 1
    assert n_most <= window_span(window) + 64 // PAGE_TOKENS
    engine.submit(replace(submit, id="again", max_tokens=4))
    engine.step()
    assert windows_of(engine).pool.n_used <= window_span(window)


def test_prompts_are_found_as_without_windows_while_there_is_room() -> None:
    """Again, with a changed end, in the middle, and the next turn."""
    runner = WindowRunner(40, n_pages=200)
    engine = Engine(runner)
    chat = prompt(150)
    told, _ = ask(engine, runner, Submit("a", chat, GREEDY, max_tokens=70))
    wanted = {
        "again": (chat, 149), "turn": ([*chat, *told, 5], 219), "end": ([*chat[:140], 9, 9], 140),
        "middle": ([*chat[:51], 9, 9], 51),
    }  # fmt: skip
    for name, (tokens, n) in wanted.items():
        assert ask(engine, runner, Submit(name, tokens, GREEDY, max_tokens=3))[1] == n, name


def test_what_a_long_text_has_pushed_out_is_computed_from_where_a_window_is_whole() -> None:
    """Of a pool of 8 pages the ends of prompts stay longest: the first prompt is found again,
    a branch in its middle is computed from its start on."""
    runner = WindowRunner(40, n_pages=200, n_window_pages=8)
    engine = Engine(runner, max_step_tokens=64)
    chat = prompt(150)
    ask(engine, runner, Submit("a", chat, GREEDY, max_tokens=3))
    ask(engine, runner, Submit("long", prompt(900, first=2), GREEDY, max_tokens=3))
    assert ask(engine, runner, Submit("again", chat, GREEDY, max_tokens=3))[1] == 149
    branch = [*chat[:60], *prompt(90, first=3)]
    assert ask(engine, runner, Submit("branch", branch, GREEDY, max_tokens=3))[1] == 0
    other = [*chat[:60], *prompt(90, first=5)]
    assert ask(engine, runner, Submit("other", other, GREEDY, max_tokens=3))[1] == 60, (
        "what two prompts share stays"
    )


def test_several_answers_of_one_prompt_share_its_window() -> None:
    runner = WindowRunner(40, n_pages=200)
    engine = Engine(runner)
    submits = [
        Submit(f"n{i}", prompt(200), SamplingParams(temperature=1.0, seed=i), max_tokens=90)
        for i in range(4)
    ]
    ask(engine, runner, submits[0])
    for submit in submits[1:]:
        engine.submit(submit)
    heard = Heard()
    heard.add(engine.step())
    assert windows_of(engine).pool.n_used <= 2 + 3 * 2, "full pages are shared, others are own"
    drain(engine, heard)
    for submit in submits[1:]:
        assert heard.answer(submit.id) == expected(submit, runner)
        assert heard.outputs[submit.id][0].n_cached == 199


def test_a_session_keeps_the_window_that_it_ends_with() -> None:
    """Others, later and longer, leave it alone."""
    runner = WindowRunner(40, n_pages=400, n_window_pages=20)
    engine = Engine(runner)
    chat = prompt(100)
    first = Submit("a", chat, GREEDY, max_tokens=20, session_id="mine")
    told, _ = ask(engine, runner, first)
    for i in range(8):
        ask(engine, runner, Submit(f"o{i}", prompt(95, first=i + 2), GREEDY, max_tokens=9))
    again = Submit("b", [*chat, *told, 1], GREEDY, max_tokens=5)
    assert ask(engine, runner, again)[1] == 119
