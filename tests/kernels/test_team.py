"""The thread team: every item once, parking and waking, several teams at once."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from kernels.emit.jit import kernel
from kernels.team import Team, claim, region


@region
def _count_body(thread, team, hits):
    while True:
        i = claim(team, 3)
        if i >= hits.size:
            return
        for j in range(i, min(i + 3, hits.size)):
            hits[j] += 1


@kernel
def _count(team, hits):
    _count_body(team, (team, hits))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_every_item_is_done_once(n_threads: int) -> None:
    with Team(n_threads) as team:
        for n in (1, 2, 7, 100, 1000):
            hits = np.zeros(n, np.int64)
            for _ in range(50):
                _count(team.state, hits)
            assert (hits == 50).all()


def threads() -> set[Path]:
    """The threads of this process, as the system knows them."""
    return set(Path("/proc/self/task").iterdir())


def wait_until_parked(members: set[Path]) -> None:
    """Returns once none of these threads wants a core. Only Linux tells."""
    deadline_s = time.monotonic() + 60
    while any((thread / "stat").read_text().rsplit(") ")[-1][0] == "R" for thread in members):
        assert time.monotonic() < deadline_s, "an idle team spins for ever"
        time.sleep(0.01)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")


@needs_proc
def test_a_parked_team_wakes_up() -> None:
    others = threads()
    with Team(2) as team:
        for _ in range(3):
            wait_until_parked(threads() - others)
            hits = np.zeros(64, np.int64)
            _count(team.state, hits)
            assert (hits == 1).all()


@needs_proc
def test_an_idle_team_burns_no_cpu() -> None:
    others = threads()
    with Team(3) as team:
        _count(team.state, np.zeros(8, np.int64))
        members = threads() - others
        assert len(members) == 2  # and this one
        wait_until_parked(members)


def test_progress_grows_with_every_region() -> None:
    for n_threads in (1, 2):
        with Team(n_threads) as team:
            before = team.progress
            _count(team.state, np.zeros(8, np.int64))
            assert team.progress == before + 1


def test_two_teams_do_not_meet() -> None:
    with Team(2) as a, Team(2) as b:
        hits_a, hits_b = np.zeros(50, np.int64), np.zeros(70, np.int64)
        for _ in range(20):
            _count(a.state, hits_a)
            _count(b.state, hits_b)
        assert (hits_a == 20).all() and (hits_b == 20).all()


def test_a_team_needs_a_thread() -> None:
    with pytest.raises(ValueError, match="at least one thread"):
        Team(0)
