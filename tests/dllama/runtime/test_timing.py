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
    steady = work(chain(repeat(100.0, WARM), repeat(0.1)))
    disturbed = work(chain(repeat(100.0, WARM), [0.3, 0.1, 0.9, 0.1, 0.3]))
    assert lower_quartiles([Timed(steady, 0.2), Timed(disturbed, 0.0)]) == pytest.approx([0.1, 0.1])


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

    part = timing.MOST_S / 1000
    lower_quartiles([Timed(named("a", part), 2 * part * ROUNDS), Timed(named("b", 5 * part), part)])
    assert order == ["a", "a", "b", "b", *["a", "a", "b"] * ROUNDS]
    order.clear()
    slow = Timed(named("slow", 0.6 * timing.MOST_S), 1.0)
    lower_quartiles([slow])
    assert order == ["slow"] * (WARM + 2), "a slow machine is not measured for ever"
