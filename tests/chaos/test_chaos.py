"""The short form of `make chaos`: one fault of each cheap kind under four streams, on loopback."""

from __future__ import annotations

import pytest

from tests.chaos.cases import CASES
from tests.chaos.cluster import Cluster, ClusterSettings
from tests.chaos.faults import FAULTS
from tests.chaos.load import Load, undisturbed
from tests.chaos.trial import Trial, Watch
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
N_STREAMS = 4
ROOT_ARGS = ("-c", "256", "--context-shift")
CHEAP = (
    "kill -9 of a session",
    "kill -9 of a daemon, back at once",
    "kill -9 of the engine",
    "kill during recovery",
    "connections reset",
    "SIGTERM, started again",
)


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.timeout(600)
def test_no_fault_changes_or_ends_an_answer() -> None:
    """And none leaves a process, a socket or a file behind."""
    settings = ClusterSettings(root_args=ROOT_ARGS)
    with Cluster(settings) as cluster:
        expected = undisturbed(cluster.socket, CASES)
        with Load(cluster.socket, N_STREAMS, expected) as load, Watch(cluster) as watch:
            trial = Trial(cluster, load, watch)
            rows = [row for row in FAULTS if row.name in CHEAP]
            assert len(rows) == len(CHEAP)
            outcomes = []
            for seed, row in enumerate(rows):
                outcomes.append(trial.suffer(row, seed))
                trial.await_whole()
    assert not load.findings, "\n".join(f"{each.case}: {each.detail}" for each in load.findings)
    assert sum(load.n_answers.values()) >= N_STREAMS
    killed = [each for each in outcomes if each.fault.name.startswith("kill -9")]
    assert all(each.notice_s is not None and each.serve_s is not None for each in killed)
    assert not cluster.leftovers
