"""When a recovery is tried, and when it gives up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dllama.engine.recovery import FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_GROWTH, Recovery


def test_the_first_attempt_is_due_at_once_and_pauses_grow_up_to_a_limit() -> None:
    recovery, now_s, pauses = Recovery(10.0, max_s=100.0), 10.0, []
    assert recovery.due_in(now_s) == 0.0
    for _ in range(8):
        recovery.note_failure(now_s)
        pauses.append(recovery.due_in(now_s))
        now_s += pauses[-1]
        assert recovery.due_in(now_s) == pytest.approx(0.0) and recovery.due_in(now_s + 9) == 0.0
    assert pauses[0] == FIRST_PAUSE_S and pauses[-1] == MAX_PAUSE_S
    for before, after in pairwise(pauses):
        assert after == pytest.approx(min(before * PAUSE_GROWTH, MAX_PAUSE_S))


def test_it_gives_up_once_and_tries_on() -> None:
    recovery = Recovery(0.0, max_s=5.0)
    assert not recovery.must_give_up(4.9) and not recovery.has_given_up
    assert recovery.must_give_up(5.0) and recovery.has_given_up
    assert not recovery.must_give_up(9.0)
    recovery.note_failure(9.0)
    assert recovery.due_in(9.0) == FIRST_PAUSE_S


def test_no_time_is_no_patience() -> None:
    assert Recovery(7.0, max_s=0.0).must_give_up(7.0)
