"""A bad link delays, loses and slows down as its rule says, and never changes the order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lan.wire import MAX_QUEUED_S, LinkRule, Wire

RULES = st.builds(
    LinkRule,
    loss=st.floats(0, 0.5),
    delay_s=st.floats(0, 0.1),
    jitter_s=st.floats(0, 0.1),
    bytes_per_s=st.sampled_from([0.0, 1e3, 1e6]),
)


def test_a_good_link_delivers_at_once() -> None:
    assert Wire().due_s(5.0, 1000, 0.0, 1.0) == 5.0


def test_a_cut_link_delivers_nothing() -> None:
    assert Wire(LinkRule(is_cut=True)).due_s(5.0, 1000, 0.9, 0.0) is None


def test_as_many_are_lost_as_the_rule_says() -> None:
    wire, rng = Wire(LinkRule(loss=0.05)), random.Random(1)
    lost = sum(wire.due_s(0.0, 1, rng.random(), 0.0) is None for _ in range(10_000))
    assert 400 < lost < 600


def test_a_slow_link_sends_one_piece_after_the_other_and_drops_what_waits_too_long() -> None:
    wire = Wire(LinkRule(bytes_per_s=1000))
    due = [wire.due_s(0.0, 500, 0.5, 0.0) for _ in range(4)]
    assert due == [0.5, 1.0, 1.5, None]
    assert wire.due_s(1.5 - MAX_QUEUED_S, 500, 0.5, 0.0) == 2.0


def test_delay_and_jitter_add_up() -> None:
    wire = Wire(LinkRule(delay_s=0.25, jitter_s=0.5))
    assert wire.due_s(1.0, 1, 0.5, 0.5) == pytest.approx(1.5)


@given(RULES, st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 2000)), max_size=40))
def test_nothing_overtakes_and_nothing_comes_before_it_is_sent(
    rule: LinkRule, sent: list[tuple[float, int]]
) -> None:
    wire, rng = Wire(rule), random.Random(0)
    now_s, last_s = 0.0, 0.0
    for pause_s, n_bytes in sent:
        now_s += pause_s
        due_s = wire.due_s(now_s, n_bytes, rng.random(), rng.random())
        if due_s is not None:
            assert due_s >= now_s and due_s >= last_s
            last_s = due_s
