"""What is thought of steps that nobody has measured follows from those that somebody has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.speculative.step_costs import (
    BASES,
    EXTRA_ROW,
    LASTING,
    LEAST_ROW,
    MEMORY,
    SHORTEST_S,
    StepCosts,
)


def test_nothing_is_said_without_a_plain_step() -> None:
    costs = StepCosts()
    assert costs.curve(1, 4) is None
    costs.note(2, 0.01)
    assert costs.curve(1, 4) is None and costs.curve(2, 4) is None
    costs.note(2, 0.03)
    assert costs.curve(1, 4) is None
    assert costs.curve(2, 0) == [0.0]


def test_lines_between_what_was_measured() -> None:
    costs = StepCosts()
    for n_rows, seconds in ((1, 0.10), (1, 0.30), (3, 0.12), (3, 0.12), (7, 0.20)):
        costs.note(n_rows, seconds)
    curve = costs.curve(1, 8)
    assert curve is not None
    slope = 1.0 / 6  # beyond
    assert curve == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0 + slope, 1.0 + 2 * slope])
    assert [round(added, 9) for added in costs.curve(3, 1) or []] == [0.0, round(0.02 / 0.12, 9)]


def test_rows_that_were_cheap_make_more_of_them_cheap() -> None:
    """Where most of a step are synchronisations, rows hardly cost anything: more of them are
    tried than have been, which a prior that stays would forbid."""
    costs = StepCosts()
    for n_rows, seconds in ((1, 0.1), (1, 0.1), (3, 0.1004)):
        costs.note(n_rows, seconds)
    curve = costs.curve(1, 5)
    assert curve is not None
    beyond = [0.004 + i * LEAST_ROW for i in (1, 2, 3)]
    assert curve == pytest.approx([0.0, 0.002, 0.004, *beyond])


@given(
    steps=st.lists(st.tuples(st.integers(1, 20), st.floats(0.1, 1.0)), max_size=60),
    n_rows=st.integers(1, 20),
    n_more=st.integers(0, 30),
)
def test_a_curve_never_falls(steps: list[tuple[int, float]], n_rows: int, n_more: int) -> None:
    costs = StepCosts()
    for rows, seconds in steps:
        costs.note(rows, seconds)
    curve = costs.curve(n_rows, n_more)
    assert (curve is None) == (sum(rows == n_rows for rows, _ in steps) < BASES)
    if curve is not None:
        largest = max(0, *(rows - n_rows for rows, _ in steps))
        assert curve[0] == 0.0 and len(curve) == 1 + min(n_more, 2 * largest + 1)
        assert curve == sorted(curve)


def test_short_steps_are_left_alone() -> None:
    costs = StepCosts()
    for _ in range(BASES):
        costs.note(1, SHORTEST_S / 2)
        costs.note(4, 4 * SHORTEST_S)
    assert costs.curve(1, 3) is None and costs.curve(4, 1) == [0.0, EXTRA_ROW / 4]


def test_old_measurements_are_forgotten() -> None:
    costs = StepCosts()
    costs.note(2, 9.0)  # something disturbed it
    costs.note(1, 0.1)
    costs.note(1, 0.1)
    assert (costs.curve(1, 1) or [])[1] > 80
    for _ in range(LASTING):
        costs.note(1, 0.1)
    assert costs.curve(1, 1) == [0.0, EXTRA_ROW]
    for _ in range(MEMORY * LASTING + 1):
        costs.note(5, 0.1)
    assert costs.curve(1, 1) is None


def test_a_new_measurement_takes_the_place_of_old_ones() -> None:
    costs = StepCosts()
    for _ in range(BASES):
        costs.note(1, 0.1)
    for _ in range(BASES * LASTING + 1):
        costs.note(5, 0.1)
    costs.note(1, 0.3)
    assert costs.seconds(1) is None, "one is too few"
    costs.note(1, 0.4)
    assert costs.seconds(1) == 0.3
