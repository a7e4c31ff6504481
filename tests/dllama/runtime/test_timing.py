"""Timing with a clock that the work itself moves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from dllama.runtime import timing
from dllama.runtime.timing import ROUNDS, WARM, Timed, lower_quartiles


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[float]], Callable[[], None]]:
    """Makes work that takes the given seconds, run by run."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def make(seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            clock[0] += next(seconds)

        return run

    return make


def test_first_runs_and_disturbed_ones_do_not_count(
    work: Callable[[Iterator[float]], Callable[[], None]],
) -> None:
    compiling = repeat(100.0, WARM)
    steady = work(chain(compiling, repeat(1.0)))
    disturbed = work(chain(compiling, [3.0, 3.0, 1.0, 9.0, 1.0, 3.0], repeat(3.0)))
    assert lower_quartiles([Timed(steady, 4.0), Timed(disturbed, 0.0)]) == [1.0, 1.0]


def test_all_take_turns_for_their_time(
    work: Callable[[Iterator[float]], Callable[[], None]],
) -> None:
    order: list[str] = []

    def named(name: str, seconds: float) -> Callable[[], None]:
        run = work(repeat(seconds))

        def both() -> None:
            order.append(name)
            run()

        return both

    lower_quartiles([Timed(named("a", 1.0), 2.0 * ROUNDS), Timed(named("b", 5.0), 1.0)])
    assert order == ["a", "a", "b", "b", *["a", "a", "b"] * ROUNDS]
