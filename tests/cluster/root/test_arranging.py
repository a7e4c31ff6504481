"""Who computes by plan; nothing is measured here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from cluster.machine import describe_machine
from cluster.mesh.sync_type import SyncType
from cluster.planning.links import LinkSpeed
from cluster.planning.measurements import MeasuredLink, Measurements
from cluster.root import arranging
from cluster.root.arranging import GivenShares, PlannedShares
from cluster.root.fitting import Candidate
from cluster.sockets import Address
from dllama.errors import ClusterError, PeerLost
from tests.cluster.planning.clusters import GB, speeds, work_of

FAST, SLOW, CRAWLS = Address("fast"), Address("slow"), Address("crawls")
READ = {FAST: 30.0, SLOW: 10.0, CRAWLS: 0.3}
LINK = LinkSpeed.rated(20, 10.0)


class Laboratory:
    """Knows the speed of every node, and who has been measured."""

    def __init__(self) -> None:
        self.measured: list[list[Address]] = []
        self.error: ClusterError | None = None

    def measure(self, workers: Sequence[Address]) -> Measurements:
        self.measured.append(list(workers))
        if self.error is not None:
            raise self.error
        n = len(workers) + 1
        links = [MeasuredLink(a, b, LINK) for b in range(n) for a in range(b)]
        return Measurements([speeds(30), *(speeds(READ[w]) for w in workers)], links)


@pytest.fixture
def laboratory() -> Laboratory:
    return Laboratory()


def planned(laboratory: Laboratory, *, uses_all: bool = False) -> PlannedShares:
    return PlannedShares(work_of(), SyncType.EXACT, laboratory.measure, uses_all=uses_all)


def candidates(*addresses: Address) -> list[Candidate]:
    welcome = describe_machine("daemon", 1)
    found = []
    for address in addresses:
        fields = {name: getattr(welcome, name) for name in welcome.__slots__}
        own = type(welcome)(**{**fields, "machine": address.host})
        found.append(Candidate(address, 1.0, own))
    return found


def free(n: int) -> list[int]:
    return [8 * GB] * (n + 1)


def test_given_shares_stay() -> None:
    some = candidates(FAST, CRAWLS)
    GivenShares().learn([FAST])
    assert GivenShares().arrange(some, free(2)) == (some, {})


def test_shares_are_by_speed_in_relation_to_the_root(laboratory: Laboratory) -> None:
    plan = planned(laboratory)
    plan.learn([FAST, SLOW])
    used, left_out = plan.arrange(candidates(FAST, SLOW), free(2))
    assert [c.address for c in used] == [FAST, SLOW] and not left_out
    assert used[0].share == pytest.approx(1.0, abs=0.15)
    assert used[1].share == pytest.approx(1 / 3, abs=0.12)
    found = plan.plan_of([FAST, SLOW])
    assert found is not None and found.prediction.decode_per_s > 0


def test_a_node_that_slows_down_is_left_out_unless_all_are_used(laboratory: Laboratory) -> None:
    plan, everyone = planned(laboratory), planned(laboratory, uses_all=True)
    for each in (plan, everyone):
        each.learn([FAST, CRAWLS])
    used, left_out = plan.arrange(candidates(FAST, CRAWLS), free(2))
    assert [c.address for c in used] == [FAST]
    assert "slow the answers down" in left_out[CRAWLS]
    used, left_out = everyone.arrange(candidates(FAST, CRAWLS), free(2))
    assert [c.address for c in used] == [FAST, CRAWLS] and not left_out


def test_a_node_that_memory_needs_is_used(laboratory: Laboratory) -> None:
    plan = planned(laboratory)
    plan.learn([CRAWLS])
    used, _ = plan.arrange(candidates(CRAWLS), [GB, 8 * GB])
    assert [c.address for c in used] == [CRAWLS]


def test_nodes_are_measured_once(laboratory: Laboratory) -> None:
    plan = planned(laboratory)
    plan.learn([FAST, SLOW])
    plan.learn([SLOW])  # FAST was lost
    plan.arrange(candidates(SLOW), free(1))
    plan.learn([FAST, SLOW])
    assert laboratory.measured == [[FAST, SLOW]]
    plan.learn([FAST, SLOW, CRAWLS])
    assert len(laboratory.measured) == 2


def test_an_unknown_node_is_taken_until_it_is_measured(laboratory: Laboratory) -> None:
    """While a session is alive nothing is measured: it joins, and is looked at between two."""
    plan = planned(laboratory)
    plan.learn([FAST])
    some = candidates(FAST, CRAWLS)
    assert plan.arrange(some, free(2)) == (some, {})
    plan.learn([FAST, CRAWLS])
    used, left_out = plan.arrange(some, free(2))
    assert [c.address for c in used] == [FAST] and CRAWLS in left_out


def test_nodes_that_cannot_be_measured_keep_their_shares(
    laboratory: Laboratory, caplog: pytest.LogCaptureFixture
) -> None:
    laboratory.error = ClusterError("the worker slow cannot measure itself")
    plan, some = planned(laboratory), candidates(FAST, SLOW)
    with caplog.at_level(logging.WARNING):
        plan.learn([FAST, SLOW])
        plan.learn([SLOW, FAST])  # not tried again
    assert "keep the shares they have: the worker slow cannot measure itself" in caplog.text
    assert len(laboratory.measured) == 1
    assert plan.arrange(some, free(2)) == (some, {})


def test_a_loss_while_nodes_are_measured_is_not_for_ever(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(arranging.time, "monotonic", lambda: now[0])
    laboratory.error = PeerLost("the worker slow was lost", rank=1, host="slow")
    plan = planned(laboratory)
    plan.learn([FAST, SLOW])
    laboratory.error = None
    plan.learn([FAST, SLOW])
    assert len(laboratory.measured) == 1
    now[0] += arranging.MEASURE_AGAIN_S
    plan.learn([FAST, SLOW])
    used, _ = plan.arrange(candidates(FAST, SLOW), free(2))
    assert used[1].share < 0.5 < used[0].share


def test_what_memory_forbids_is_planned_anew_once_there_is_more(laboratory: Laboratory) -> None:
    plan, some = planned(laboratory), candidates(FAST, SLOW)
    plan.learn([FAST, SLOW])
    used, left_out = plan.arrange(some, [8 * GB, 8 * GB, GB // 100])
    assert [c.address for c in used] == [FAST] and SLOW in left_out
    used, left_out = plan.arrange(some, free(2))
    assert [c.address for c in used] == [FAST, SLOW] and not left_out


def test_the_order_of_nodes_changes_no_share(laboratory: Laboratory) -> None:
    plan = planned(laboratory)
    plan.learn([FAST, SLOW])
    one, _ = plan.arrange(candidates(FAST, SLOW), [8 * GB, 8 * GB, GB])
    other, _ = plan.arrange(candidates(SLOW, FAST), [8 * GB, GB, 8 * GB])
    assert [c.address for c in other] == [SLOW, FAST]
    assert {c.address: c.share for c in one} == {c.address: c.share for c in other}


def test_a_model_without_room_is_left_to_who_chooses_pages(laboratory: Laboratory) -> None:
    plan, some = planned(laboratory), candidates(FAST)
    plan.learn([FAST])
    assert plan.arrange(some, [GB // 4, GB // 4]) == (some, {})


def test_the_newest_welcome_is_used(laboratory: Laboratory) -> None:
    plan = planned(laboratory)
    plan.learn([FAST])
    plan.arrange(candidates(FAST), free(1))
    (newer,) = candidates(FAST)
    (used,), _ = plan.arrange([newer], free(1))
    assert used.welcome is newer.welcome
