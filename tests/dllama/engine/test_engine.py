"""The engine against a model that remembers everything: whatever else runs, is pre-empted or
aborted, every sequence gets the tokens it would get alone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.errors import PeerLost
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.step import PAGE_TOKENS
from tests.dllama.engine.days import Heard, Visit, drain, expected, live_through, prompt, visits
from tests.dllama.engine.history_runner import Answer, HistoryRunner

GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, top_k=20, seed=3)


def kv(engine: Engine) -> dict[str, object]:
    found = engine.stats()["kv"]
    assert isinstance(found, dict)
    return found


def test_one_sequence_gets_the_models_answer() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    submit = Submit("a", prompt(5), WARM, max_tokens=50)
    engine.submit(submit)
    heard = drain(engine)
    assert heard.answer("a") == expected(submit, runner)
    assert heard.answer("a").finish is FinishReason.LENGTH
    assert len(heard.answer("a").tokens) == 50
    assert {output.n_prompt for output in heard.outputs["a"]} == {5}
    assert runner.step_sizes == [[5]] + [[1]] * 49


def test_batch_equals_singles() -> None:
    submits = [
        Submit(f"s{i}", prompt(3 + 11 * i, i), replace(WARM, seed=i), max_tokens=20 + i)
        for i in range(6)
    ]
    runner = HistoryRunner()
    engine = Engine(runner)
    for submit in submits:
        engine.submit(submit)
    heard = drain(engine)
    assert max(map(len, runner.step_sizes)) == 6
    for submit in submits:
        assert heard.answer(submit.id) == expected(submit, runner)


@pytest.mark.parametrize("max_step_tokens", [1, 3, 32, 33, 256])
def test_chunked_prefill_equals_whole(max_step_tokens: int) -> None:
    runner = HistoryRunner()
    engine = Engine(runner, max_batch=1, max_step_tokens=max_step_tokens)
    submit = Submit("a", prompt(100), WARM, max_tokens=8)
    engine.submit(submit)
    assert drain(engine).answer("a") == expected(submit, runner)
    assert max(sum(sizes) for sizes in runner.step_sizes) == min(max_step_tokens, 100)


def test_a_long_prompt_never_stalls_the_others() -> None:
    runner = HistoryRunner()
    engine = Engine(runner, max_batch=2, max_step_tokens=8, clock=lambda: 0.0)
    engine.submit(Submit("short", prompt(2), GREEDY, max_tokens=30))
    engine.step()
    engine.step()
    engine.submit(Submit("long", prompt(100), GREEDY, max_tokens=1))
    heard = Heard()
    for _ in range(10):
        outputs = engine.step()
        assert [output.id for output in outputs] == ["short"]
        heard.add(outputs)
    assert runner.step_sizes[2:] == [[1, 7]] * 10


def test_preempted_equals_undisturbed() -> None:
    runner = HistoryRunner(n_pages=5)
    engine = Engine(runner, max_step_tokens=64)
    submits = [
        Submit(f"s{i}", prompt(20, i), replace(WARM, seed=i), max_tokens=100) for i in range(4)
    ]
    for submit in submits:
        engine.submit(submit)
    heard = drain(engine)
    assert engine.scheduler.n_preempted > 0, "the pool was too large for this test"
    for submit in submits:
        assert heard.answer(submit.id) == expected(submit, runner)
    assert kv(engine)["pages_used"] == 0
    runner.lose()
    with pytest.raises(PeerLost):
        engine.idle()
    n_preempted = engine.scheduler.n_preempted
    engine.recover()
    sequences = engine.stats()["sequences"]
    assert isinstance(sequences, dict) and sequences["preempted"] == n_preempted, "it still counts"


def test_a_seed_repeats_its_stream_whatever_runs_beside_it() -> None:
    submit = Submit("a", prompt(9), replace(WARM, seed=11), max_tokens=30)
    alone, crowded = Engine(HistoryRunner()), Engine(HistoryRunner(), max_batch=3)
    alone.submit(submit)
    for i in range(5):
        crowded.submit(Submit(f"other{i}", prompt(40, i), WARM, max_tokens=25))
    crowded.submit(submit)
    stream = drain(alone).answer("a")
    assert drain(crowded).answer("a") == stream
    other = Engine(HistoryRunner())
    other.submit(replace(submit, sampling=replace(WARM, seed=12)))
    assert drain(other).answer("a") != stream


def test_stop_ids_end_the_answer_and_are_no_part_of_it() -> None:
    runner = HistoryRunner()
    free = expected(Submit("a", prompt(4), GREEDY, max_tokens=30), runner).tokens
    stop = next(token for i, token in enumerate(free) if i >= 5 and token not in free[:i])
    submit = Submit(
        "a", prompt(4), GREEDY, stop_ids=[96 if stop != 96 else 95, stop], max_tokens=30
    )
    engine = Engine(runner)
    engine.submit(submit)
    answer = drain(engine).answer("a")
    assert answer == expected(submit, runner)
    if answer.finish is FinishReason.STOP:
        assert stop not in answer.tokens


def test_a_stop_id_at_max_tokens_is_a_stop() -> None:
    runner = HistoryRunner()
    free = expected(Submit("a", prompt(4), GREEDY, max_tokens=1), runner).tokens
    engine = Engine(runner)
    engine.submit(Submit("a", prompt(4), GREEDY, stop_ids=free, max_tokens=1))
    assert drain(engine).answer("a") == Answer([], FinishReason.STOP)


@pytest.mark.parametrize(
    ("n_pages", "max_seq_len", "max_len"), [(64, 50, 50), (2, 1000, 2 * PAGE_TOKENS)]
)
def test_a_full_context_is_a_length(n_pages: int, max_seq_len: int, max_len: int) -> None:
    runner = HistoryRunner(n_pages=n_pages, max_seq_len=max_seq_len)
    engine = Engine(runner)
    submit = Submit("a", prompt(10), GREEDY)
    engine.submit(submit)
    answer = drain(engine).answer("a")
    assert answer == expected(submit, runner)
    assert len(answer.tokens) == max_len - 10 and engine.max_len == max_len


def test_no_tokens_wanted_is_an_answer_without_tokens() -> None:
    engine = Engine(HistoryRunner())
    engine.submit(Submit("a", prompt(3), GREEDY, max_tokens=0))
    assert drain(engine).answer("a") == Answer([], FinishReason.LENGTH)


def test_abort_returns_every_page_and_is_silent() -> None:
    engine = Engine(HistoryRunner(), max_batch=2)
    for name in "abc":
        engine.submit(Submit(name, prompt(50), GREEDY, max_tokens=50))
    engine.step()
    assert kv(engine)["pages_used"] == 4
    for name in ("a", "b", "c", "unknown"):
        engine.abort(name)
    assert kv(engine)["pages_used"] == 0
    assert not engine.has_work() and engine.step() == []
    sequences = engine.stats()["sequences"]
    assert isinstance(sequences, dict) and sequences["aborted"] == 3


def test_an_aborted_refusal_is_not_delivered() -> None:
    engine = Engine(HistoryRunner())
    engine.submit(Submit("a", []))
    engine.abort("a")
    assert not engine.has_work()


@pytest.mark.parametrize(
    ("submit", "words"),
    [
        (Submit("a", []), "no tokens"),
        (Submit("a", [1, 97]), "token 97.*0 to 96"),
        (Submit("a", [-1]), "token -1"),
        (Submit("a", [1] * 64), "has 64 tokens.*at most 64"),
        (Submit("a", [1], max_tokens=-1), "max_tokens is -1"),
        (Submit("", [1]), "id has 0 characters"),
        (Submit("a", [1], SamplingParams(temperature=float("nan"))), "temperature is nan"),
        (Submit("a", [1], SamplingParams(top_p=1.5)), "top_p is 1.5, and 0 to 1"),
        (Submit("a", [1], SamplingParams(min_p=-0.1)), "min_p is -0.1"),
        (Submit("a", [1], SamplingParams(top_k=-1)), "top_k is -1, and 0 or more"),
        (Submit("a", [1], SamplingParams(repeat_penalty=0.0)), "repeat_penalty is 0.0"),
        (Submit("a", [1], SamplingParams(repeat_last_n=-2)), "repeat_last_n is -2"),
        (Submit("a", [1], SamplingParams(logit_bias={97: 1.0})), "logit_bias names the token 97"),
        (Submit("a", [1], SamplingParams(logit_bias={1: float("inf")})), "bias of token 1 is inf"),
    ],
)
def test_a_bad_request_gets_a_sentence_and_harms_nobody(submit: Submit, words: str) -> None:
    runner = HistoryRunner(n_pages=2)
    engine = Engine(runner)
    good = Submit("good", prompt(3), GREEDY, max_tokens=4)
    engine.submit(good)
    engine.submit(submit)
    heard = drain(engine)
    (refused,) = heard.outputs[submit.id]
    assert refused.finish is FinishReason.ERROR and refused.retry_after_s is None
    assert re.search(words, refused.error or "")
    assert heard.answer("good") == expected(good, runner)


def test_an_id_that_is_in_use_ends_both() -> None:
    engine = Engine(HistoryRunner())
    engine.submit(Submit("a", prompt(3), GREEDY))
    engine.step()
    engine.submit(Submit("a", prompt(3), GREEDY))
    (output,) = engine.step()
    assert output.finish is FinishReason.ERROR and "id of its own" in (output.error or "")
    assert not engine.has_work() and kv(engine)["pages_used"] == 0


def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    engine = Engine(HistoryRunner(), max_waiting=2)
    for name in "abc":
        engine.submit(Submit(name, prompt(3), GREEDY, max_tokens=2))
    heard = drain(engine)
    assert heard.answer("c").finish is FinishReason.ERROR
    assert heard.outputs["c"][0].retry_after_s is not None
    assert heard.answer("b").finish is FinishReason.LENGTH


def test_forbidding_every_token_ends_only_that_sequence() -> None:
    runner = HistoryRunner(vocab_size=5)
    engine = Engine(runner)
    ban = SamplingParams(logit_bias=dict.fromkeys(range(5), float("-inf")))
    engine.submit(Submit("banned", [1, 2], ban))
    good = Submit("good", [1, 2], WARM, max_tokens=5)
    engine.submit(good)
    heard = drain(engine)
    assert "forbids every token" in (heard.outputs["banned"][0].error or "")
    sequences = engine.stats()["sequences"]
    assert isinstance(sequences, dict)
    assert (sequences["failed"], sequences["finished"]) == (1, 1)
    assert heard.answer("good") == expected(good, runner)


def test_a_lost_node_ends_nothing_and_new_requests_wait() -> None:
    runner = HistoryRunner(lose_at=[3], n_failures=1)
    engine = Engine(runner, max_batch=2)
    submits = [Submit(name, prompt(5), GREEDY, max_tokens=50) for name in "abc"]
    for submit in submits:
        engine.submit(submit)
    heard = Heard()
    with pytest.raises(PeerLost, match=r"10\.0\.0\.9:9998 left"):
        drain(engine, heard)
    assert not any(output.finish for told in heard.outputs.values() for output in told)
    assert engine.has_work() and kv(engine)["pages_used"] == 0
    assert [s.id for s in engine.scheduler.waiting] == list("abc"), "in their order"
    early = Submit("early", prompt(3), GREEDY, max_tokens=4)
    engine.submit(early)
    engine.submit(Submit("leaves", prompt(3), GREEDY))
    engine.abort("leaves")
    assert engine.step() == [] and engine.pending_change is None
    engine.idle()  # nothing to watch over while it is known to be lost
    with pytest.raises(PeerLost, match="left"):
        engine.recover()
    engine.recover()
    drain(engine, heard)
    for submit in [*submits, early]:
        assert heard.answer(submit.id) == expected(submit, runner)
    engine.scheduler.check_integrity()


def test_a_node_lost_while_idle_is_noticed() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    engine.idle()
    runner.lose()
    with pytest.raises(PeerLost):
        engine.idle()
    assert engine.step() == [] and engine.stats()["workers"] == []


def test_what_was_not_delivered_at_a_loss_is_delivered_after_it() -> None:
    now_s = [0.0]
    runner = HistoryRunner(lose_at=[0])
    engine = Engine(runner, clock=lambda: now_s[0])
    engine.submit(Submit("bad", []))
    engine.submit(Submit("late", prompt(3), GREEDY, deadline_s=1.0))
    engine.submit(Submit("late too", prompt(3), GREEDY, deadline_s=3.0))
    engine.submit(Submit("a", prompt(3), GREEDY, max_tokens=2))
    now_s[0] = 2.0
    with pytest.raises(PeerLost):
        engine.step()
    assert [output.id for output in engine.step()] == ["bad", "late"]
    now_s[0] = 4.0
    assert [output.id for output in engine.step()] == ["late too"], "deadlines hold meanwhile"
    now_s[0] = 7.0
    engine.recover()
    assert drain(engine).answer("a").finish is FinishReason.LENGTH
    assert engine.stats()["recovery"] == {"total": 1, "seconds": 5.0}


def test_what_waits_too_long_is_given_up_and_new_ones_are_refused_until_it_is_back() -> None:
    now_s = [0.0]
    runner = HistoryRunner(lose_at=[2])
    engine = Engine(runner, clock=lambda: now_s[0])
    engine.submit(Submit("a", prompt(3), GREEDY, max_tokens=9))
    heard = Heard()
    with pytest.raises(PeerLost):
        drain(engine, heard)
    now_s[0] = 120.0
    engine.give_up()
    engine.submit(Submit("b", prompt(3), GREEDY))
    heard.add(engine.step())
    for name, words in (("a", r"10\.0\.0\.9:9998 left.*within 120 s"), ("b", "a few seconds")):
        last = heard.outputs[name][-1]
        assert last.finish is FinishReason.ERROR and last.retry_after_s == 3.0
        assert re.search(words, last.error or "")
    engine.recover()
    submit = Submit("c", prompt(3), GREEDY, max_tokens=3)
    engine.submit(submit)
    assert drain(engine).answer("c") == expected(submit, runner)


def test_sessions_keep_their_names_and_pins_over_a_loss() -> None:
    runner = HistoryRunner(n_pages=16)
    engine = Engine(runner)
    submit = Submit("a", prompt(70), GREEDY, max_tokens=5, session_id="s")
    engine.submit(submit)
    answer = drain(engine).answer("a")
    runner.lose()
    with pytest.raises(PeerLost):
        engine.idle()
    engine.recover()
    session = engine.scheduler.kv.sessions.get("s")
    assert session is not None and len(session.tokens) == 74
    again = Submit("b", [*submit.tokens, *answer.tokens], GREEDY, max_tokens=5)
    engine.submit(again)
    assert drain(engine).answer("b") == expected(again, runner)
    for i in range(40):
        engine.submit(Submit(f"n{i}", prompt(60, i), GREEDY, max_tokens=2))
        drain(engine)
    engine.scheduler.check_integrity()
    assert len(engine.scheduler.pool.find(session.keys[:2])) == 2, "still pinned"


def test_nodes_that_are_left_may_have_less_room() -> None:
    runner = HistoryRunner(n_pages=8)
    engine = Engine(runner)
    short = Submit("short", prompt(9), GREEDY, max_tokens=20)
    engine.submit(short)
    engine.submit(Submit("long", prompt(100), GREEDY, max_tokens=20))
    heard = Heard()
    for _ in range(3):
        heard.add(engine.step())
    runner.lose()
    with pytest.raises(PeerLost):
        engine.step()
    runner.shrink(2)
    engine.recover()
    assert engine.scheduler.pool.n_pages == 2
    drain(engine, heard)
    assert heard.answer("short") == expected(short, runner)
    last = heard.outputs["long"][-1]
    assert last.finish is FinishReason.ERROR and "have room for 64" in (last.error or "")


def test_a_change_of_nodes_is_a_pause() -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    submit = Submit("a", prompt(40), WARM, max_tokens=20)
    engine.submit(submit)
    heard = Heard()
    for _ in range(6):
        heard.add(engine.step())
    runner.change = "node 2 is back"
    assert engine.pending_change == "node 2 is back"
    engine.suspend("node 2 is back")
    assert engine.pending_change is None
    engine.recover()
    drain(engine, heard)
    assert heard.answer("a") == expected(submit, runner)


def test_stats_have_the_shape_of_the_design() -> None:
    times = iter(range(10_000))
    engine = Engine(HistoryRunner(), clock=lambda: float(next(times)))
    for name in "ab":
        engine.submit(Submit(name, prompt(40), GREEDY, max_tokens=10))
    drain(engine)
    stats = engine.stats()
    assert stats["model"] == "history" and stats["world_size"] == 1
    assert stats["sequences"] == {
        "waiting": 0,
        "running": 0,
        "finished": 2,
        "aborted": 0,
        "failed": 0,
        "preempted": 0,
        "sessions": 0,
    }
    assert stats["kv"] == {  # each left its last page behind; the first is the same
        "pages_used": 0,
        "pages_kept": 2,
        "pages_total": 64,
        "prefix_hit_rate": 0.0,
    }
    # The clock ticks twice a step: both prompts in one of a second, nine steps of two rows.
    assert stats["tokens_per_s"] == {"prefill": 80.0, "decode": 2.0}
    assert stats["latency_ms"] == {
        "ttft_p50": 3000.0,
        "ttft_p95": 3000.0,
        "itl_p50": 2000.0,
        "itl_p95": 2000.0,
    }
    assert stats["workers"] == [{"rank": 0, "host": "here", "threads": 1}]


def test_a_second_turn_computes_only_what_is_new() -> None:
    """A chat: the next prompt is the last one, its answer, and a new question."""
    runner = HistoryRunner(n_pages=32)
    engine = Engine(runner)
    first = Submit("a", prompt(100), SamplingParams(temperature=0), max_tokens=30)
    engine.submit(first)
    told = drain(engine).answer("a")
    second = Submit(
        "b", [*first.tokens, *told.tokens, 5, 6, 7], SamplingParams(temperature=0), max_tokens=9
    )
    runner.step_sizes.clear()
    engine.submit(second)
    heard = drain(engine)
    assert heard.answer("b") == expected(second, runner)
    n_shared = 129  # the last token of an answer is never computed
    assert runner.step_sizes[0] == [len(second.tokens) - n_shared]
    assert heard.outputs["b"][0].n_cached == n_shared
    assert engine.stats()["kv"]["prefix_hit_rate"] > 0.4  # type: ignore[index]


def test_a_shared_beginning_is_computed_once_and_held_by_both() -> None:
    runner = HistoryRunner(n_pages=16)
    engine = Engine(runner)
    system = prompt(PAGE_TOKENS * 3)
    asks = [Submit(f"s{i}", [*system, i], SamplingParams(seed=i), max_tokens=40) for i in range(4)]
    engine.submit(asks[0])
    heard = Heard()
    heard.add(engine.step())
    for ask in asks[1:]:
        engine.submit(ask)
    heard.add(engine.step())
    engine.scheduler.check_integrity()
    assert kv(engine)["pages_used"] == 3 + 4  # three shared pages, and one each
    drain(engine, heard)
    for ask in asks:
        assert heard.answer(ask.id) == expected(ask, runner)
    assert kv(engine)["pages_used"] == 0


def test_a_prompt_that_is_known_whole_still_gets_its_logits() -> None:
    """Also one that ends with a page: its last token is computed anyway."""
    for n in (PAGE_TOKENS, PAGE_TOKENS * 2, PAGE_TOKENS * 2 + 1):
        runner = HistoryRunner()
        engine = Engine(runner)
        for name in "ab":
            engine.submit(Submit(name, prompt(n), SamplingParams(temperature=0), max_tokens=5))
            heard = drain(engine)
            want = expected(
                Submit(name, prompt(n), SamplingParams(temperature=0), max_tokens=5), runner
            )
            assert heard.answer(name) == want


def test_what_was_left_longest_ago_goes_first() -> None:
    """Old conversations give way to new ones, and come back by being computed again."""
    runner = HistoryRunner(n_pages=8)
    engine = Engine(runner)
    for i in (1, 2, 3, 1):
        ask = Submit(f"q{i}", prompt(PAGE_TOKENS * 3 + 1, i), SamplingParams(seed=1), max_tokens=4)
        engine.submit(ask)
        assert drain(engine).answer(ask.id) == expected(ask, runner)
        engine.scheduler.check_integrity()
    assert kv(engine)["pages_used"] == 0


def test_close_closes_the_runner() -> None:
    runner = HistoryRunner()
    Engine(runner).close()
    assert runner.is_closed


@settings(max_examples=60)
@given(
    day=visits(),
    n_pages=st.integers(4, 10),
    max_batch=st.integers(1, 5),
    spare_tokens=st.integers(0, 40),
)
def test_any_day_gives_everyone_their_answer(
    day: list[Visit], n_pages: int, max_batch: int, spare_tokens: int
) -> None:
    """Random arrivals, lengths and departures over a small pool: all answers are those of an
    empty world, departed clients heard a beginning of theirs, and every page comes back."""
    runner = HistoryRunner(n_pages=n_pages)
    max_step_tokens = max_batch + spare_tokens
    engine = Engine(runner, max_batch=max_batch, max_step_tokens=max_step_tokens)
    live_through(engine, runner, day, engine.scheduler.check_integrity)
    assert all(sum(sizes) <= max_step_tokens for sizes in runner.step_sizes)
    assert all(len(sizes) <= max_batch for sizes in runner.step_sizes)
