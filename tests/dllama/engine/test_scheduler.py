"""Who gets a turn: decoding first, then prompts in order of arrival; nobody is forgotten."""

from __future__ import annotations

import pytest

from dllama.engine.batch import Batch
from dllama.engine.scheduler import Scheduler
from dllama.engine.sequence import Sequence, SequenceState
from dllama.errors import ConfigError, EngineBusy, RequestError
from dllama.requests import Submit
from dllama.step import PAGE_TOKENS


def make_sequence(name: str, n_prompt: int) -> Sequence:
    return Sequence.from_submit(Submit(name, list(range(1, n_prompt + 1))), 10_000, 0.0)


def make_scheduler(
    n_pages: int = 100, max_batch: int = 4, max_step_tokens: int = 16, max_waiting: int = 8
) -> Scheduler:
    return Scheduler(
        n_pages=n_pages,
        max_seq_len=10_000,
        max_batch=max_batch,
        max_step_tokens=max_step_tokens,
        max_waiting=max_waiting,
    )


def shape(batch: Batch | None) -> list[tuple[str, int]]:
    assert batch is not None
    return [(chunk.sequence.id, chunk.n) for chunk in batch.chunks]


def commit(batch: Batch | None) -> None:
    """What the engine does after a step, with a token out of thin air."""
    assert batch is not None
    for chunk in batch.chunks:
        is_last = chunk.is_last
        chunk.sequence.n_computed += chunk.n
        if is_last:
            chunk.sequence.tokens.append(7)


def test_decoding_comes_first_and_prompts_share_the_rest() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a", 3))
    commit(scheduler.schedule())
    for name, n in (("b", 20), ("c", 5)):
        scheduler.add(make_sequence(name, n))
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 1), ("b", 10), ("c", 5)]
    commit(batch)
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 1), ("c", 1), ("b", 10)]
    commit(batch)
    assert shape(scheduler.schedule()) == [("a", 1), ("b", 1), ("c", 1)]


def test_a_full_batch_makes_the_others_wait() -> None:
    scheduler = make_scheduler(max_batch=2)
    for name in "abc":
        scheduler.add(make_sequence(name, 2))
    commit(scheduler.schedule())
    assert [s.id for s in scheduler.running] == ["a", "b"]
    scheduler.remove("a")
    assert shape(scheduler.schedule()) == [("b", 1), ("c", 1)]  # c goes on where a was left


def test_nothing_to_do_is_no_batch() -> None:
    assert make_scheduler().schedule() is None


def test_the_newest_makes_room_for_the_oldest_and_keeps_its_tokens() -> None:
    scheduler = make_scheduler(n_pages=3, max_step_tokens=100)
    a, b = make_sequence("a", PAGE_TOKENS - 1), make_sequence("b", PAGE_TOKENS - 1)
    scheduler.add(a)
    scheduler.add(b)
    commit(scheduler.schedule())  # both have 32 tokens now, and one page each
    commit(scheduler.schedule())  # 33 tokens: both need another page, and only one is free
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 1)]
    assert b.state is SequenceState.WAITING
    assert (len(b.tokens), b.n_computed, len(b.pages)) == (PAGE_TOKENS + 1, 0, 0)
    assert scheduler.n_preempted == 1
    scheduler.check_integrity()
    commit(batch)
    scheduler.remove("a")
    batch = scheduler.schedule()
    assert shape(batch) == [("b", PAGE_TOKENS + 1)]
    assert batch is not None and batch.chunks[0].is_last


def test_a_preempted_sequence_is_first_in_the_queue() -> None:
    scheduler = make_scheduler(n_pages=3, max_step_tokens=100, max_batch=2)
    for name in "abc":
        scheduler.add(make_sequence(name, PAGE_TOKENS - 1))
    for _ in range(2):
        commit(scheduler.schedule())
    scheduler.schedule()
    assert [s.id for s in scheduler.running] == ["a"]
    assert [s.id for s in scheduler.waiting] == ["b", "c"]


def test_a_sequence_is_not_admitted_to_be_thrown_out_again() -> None:
    """Each running sequence may need a page soon, so that many have to stay free."""
    scheduler = make_scheduler(n_pages=2, max_step_tokens=100)
    scheduler.add(make_sequence("a", 4))
    scheduler.add(make_sequence("b", 4))
    assert shape(scheduler.schedule()) == [("a", 4)]


def test_what_can_never_fit_is_refused_with_both_numbers() -> None:
    scheduler = make_scheduler(n_pages=2)
    scheduler.add(make_sequence("fits", 2 * PAGE_TOKENS - 1))
    with pytest.raises(RequestError, match=r"has 64 tokens.* at most 64") as refused:
        scheduler.add(make_sequence("too long", 2 * PAGE_TOKENS))
    assert refused.value.param == "messages"
    assert len(scheduler) == 1


def test_a_full_queue_is_busy() -> None:
    scheduler = make_scheduler(max_waiting=2)
    for name in "ab":
        scheduler.add(make_sequence(name, 1))
    with pytest.raises(EngineBusy, match="2 requests are waiting"):
        scheduler.add(make_sequence("c", 1))
    assert "c" not in scheduler and "a" in scheduler
    scheduler.add(make_sequence("d", 1), is_resumed=True)
    assert "d" in scheduler, "it had its place in the queue of an engine that is gone"


def test_clear_forgets_everyone_oldest_first() -> None:
    scheduler = make_scheduler(max_batch=1)
    for name in "abc":
        scheduler.add(make_sequence(name, 5))
    scheduler.schedule()
    assert [s.id for s in scheduler.clear()] == ["a", "b", "c"]
    assert len(scheduler) == 0 and scheduler.pool.n_used == 0
    assert scheduler.remove("a") is None


def test_a_sequence_that_has_ended_is_not_late() -> None:
    scheduler = make_scheduler()
    for name, deadline_s in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        sequence = make_sequence(name, 5)
        sequence.deadline_s = deadline_s
        scheduler.add(sequence)
    assert [s.id for s in scheduler.all_late(2.0)] == ["a", "b"]
    scheduler.remove("a")
    assert [s.id for s in scheduler.all_late(2.0)] == ["b"]
    scheduler.clear()
    assert scheduler.all_late(9.0) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"n_pages": 0},
        {"max_batch": 0},
        {"max_batch": 17, "max_step_tokens": 16},
        {"max_waiting": 0},
    ],
)
def test_limits_that_leave_no_room_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make_scheduler(**limits)
