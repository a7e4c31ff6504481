"""The same seed gives the same faults; every kind comes, by its weight."""

from __future__ import annotations

from collections import Counter

from tests.chaos.faults import FAULTS, possible_faults, schedule


def test_the_same_seed_gives_the_same_faults() -> None:
    rows = possible_faults(has_machines=True)
    assert schedule(rows, 200, 7) == schedule(rows, 200, 7) != schedule(rows, 200, 8)


def test_every_kind_comes() -> None:
    rows = possible_faults(has_machines=True)
    assert {row for row, _ in schedule(rows, len(rows), 1)} == set(rows)


def test_weights_count() -> None:
    rows = possible_faults(has_machines=True)
    times = Counter(row.name for row, _ in schedule(rows, 2000, 1))
    assert times["kill -9 of a session"] > 3 * times["read-only disk"]


def test_what_needs_machines_does_not_come_on_loopback() -> None:
    names = {row.name for row in possible_faults(has_machines=False)}
    assert "full disk" not in names and "kill -9 of a session" in names
    assert len({row.name for row in FAULTS}) == len(FAULTS)
