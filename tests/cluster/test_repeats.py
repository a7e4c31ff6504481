"""A line a peer and kind, then a count."""

from __future__ import annotations

from cluster.repeats import COUNT_EVERY_S, MAX_KEYS, Repeats


def test_the_first_is_told_and_the_others_are_counted() -> None:
    repeats = Repeats()
    told = [repeats.is_first("10.0.0.1", "noise", i / 10) for i in range(100)]
    assert told == [True] + [False] * 99
    assert repeats.is_first("10.0.0.1", "threats", 1.0) and repeats.is_first("::1", "noise", 1.0)
    assert list(repeats.due(COUNT_EVERY_S - 1)) == []
    assert list(repeats.due(COUNT_EVERY_S)) == ["10.0.0.1: noise, 99 times more in 60 s"]
    assert list(repeats.due(COUNT_EVERY_S)) == []


def test_who_was_quiet_is_told_of_again() -> None:
    repeats = Repeats()
    assert repeats.is_first("a", "noise", 0.0)
    assert list(repeats.due(COUNT_EVERY_S)) == []
    assert repeats.is_first("a", "noise", COUNT_EVERY_S + 1)


def test_any_number_of_peers_take_a_bounded_number_of_lines() -> None:
    repeats = Repeats()
    n_told = sum(repeats.is_first(f"peer {i}", f"kind {i}", 0.0) for i in range(10 * MAX_KEYS))
    assert n_told == MAX_KEYS + 1
    assert len(list(repeats.due(COUNT_EVERY_S))) == 1
