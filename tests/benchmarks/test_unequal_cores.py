"""What is left of two cores that meet, by cores whose speed is known."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.unequal_cores import kept, main


def done_by(*seconds_each: float) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(seconds_each)])


def test_equal_cores_lose_nothing() -> None:
    even = done_by(*[1.0] * 100)
    assert kept([even, even], 4) == pytest.approx(1.0)


def test_the_slower_core_is_waited_for() -> None:
    fast, slow = done_by(*[1.0] * 120), done_by(*[1.5] * 80)
    # In 1.5 s two products are done where both cores would do 1 + 1.5 of them.
    assert kept([fast, slow], 1) == pytest.approx(2 / 2.5, abs=0.02)


def test_what_evens_out_between_two_meetings_costs_nothing() -> None:
    fast, slow = [1.0] * 20, [2.0] * 10  # 20 s each
    one, other = done_by(*(fast + slow) * 20), done_by(*(slow + fast) * 20)
    assert kept([one, other], 30) == pytest.approx(1.0, abs=0.02)
    assert kept([one, other], 1) == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_it_measures_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    main(["--cores", cores, "--seconds", "1"])
    out = capsys.readouterr().out
    assert "of both cores freely" in out
    assert "Products by core" in out
