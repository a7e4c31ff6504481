"""Which nodes a session is planned over, whatever happens to them in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.root.members import (
    DECAY_S,
    HELLO_S,
    MAX_PENALTY_S,
    RECONSIDER_S,
    STRANGER_HELLO_S,
    Members,
    State,
)
from cluster.sockets import Address
from dllama.errors import ConfigError

A, B, C = (Address(f"host-{name}") for name in "abc")


def members(*addresses: Address, rejoin_s: float = 3.0) -> Members:
    """Nodes that are all present, at time 0."""
    made = Members(addresses, [1.0] * len(addresses), rejoin_s, 0.0)
    made.began(addresses, 0.0)
    return made


def state(known: Members, address: Address) -> State:
    member = known.get(address)
    assert member is not None
    return member.state


def test_a_node_that_was_lost_once_is_used_as_soon_as_it_answers() -> None:
    known = members(A, B)
    known.lost(A, "it fell silent", 10.0)
    known.ended(10.0)
    assert known.preferred([A, B], 10.0) == [[A, B]]
    assert known.preferred([B], 10.0) == [[B]]


def test_a_lost_node_is_waited_for_since_the_loss_and_strangers_only_briefly() -> None:
    known = members(A, B)
    known.add(C, 1.0, 5.0)
    known.lost(A, "it fell silent", 10.0)
    known.ended(10.0)
    assert known.patience(A, 12.0) == 13.0
    assert known.patience(B, 10.5) == 13.0
    assert known.patience(B, 20.0) == 20.0 + HELLO_S
    assert known.patience(C, 10.5) == 10.5 + HELLO_S, "it was not greeted yet"
    known.silent(C, "it does not answer", 10.0)
    assert known.patience(C, 10.5) == 10.5 + STRANGER_HELLO_S


def test_a_node_that_joins_has_time_to_answer_again() -> None:
    known = members(A, B)
    known.lost(A, "it fell silent", 10.0)
    known.ended(10.0)
    known.began([B], 13.0)
    known.joins(A, 20.0)
    known.ended(20.0)
    assert known.patience(A, 20.0) == 20.0 + HELLO_S


def test_without_patience_only_the_others_have_time_to_answer() -> None:
    known = members(A, B, rejoin_s=0.0)
    known.lost(A, "it fell silent", 10.0)
    known.ended(10.0)
    assert known.patience(A, 10.0) == 10.0
    assert known.patience(B, 10.0) == 10.0 + HELLO_S


def test_a_node_that_answers_again_is_a_change() -> None:
    known = members(A, B)
    known.lost(A, "it fell silent", 10.0)
    known.ended(10.0)
    known.began([B], 13.0)
    assert known.change() is None
    assert known.due_looks(13.0) == [A] and known.due_looks(13.5) == []
    known.joins(A, 14.0)
    assert "host-a:9998 is there" in (known.change() or "")
    known.ended(14.0)
    known.began([A, B], 14.5)
    assert known.change() is None and state(known, A) is State.PRESENT


def test_a_node_that_drains_is_a_change_unless_it_is_needed() -> None:
    known = members(A, B)
    known.drains(A, "it is to end", 5.0, is_needed=True)
    assert known.change() is None
    known.drains(A, "it is to end", 6.0, is_needed=False)
    assert known.change() == "worker host-a:9998 leaves: it is to end"
    known.began([B], 7.0)
    assert state(known, A) is State.AWAY and known.due_looks(7.0) == [A], "it may come back"


def test_a_removed_node_stays_until_the_next_session() -> None:
    known = members(A, B)
    known.remove(A, 5.0)
    assert known.preferred([A, B], 5.0) == [[B]]
    assert "removed by hand" in (known.change() or "")
    known.began([B], 6.0)
    assert A not in known and known.change() is None
    with pytest.raises(ConfigError, match=r"no worker host-a:9998; the workers are: host-b:9998"):
        known.remove(A, 7.0)


def test_a_node_is_added_once_and_one_in_no_session_is_forgotten_at_once() -> None:
    known = members(A)
    with pytest.raises(ConfigError, match="is known already and is present"):
        known.add(A, 1.0, 1.0)
    known.add(B, 2.0, 1.0)
    assert state(known, B) is State.AWAY and known.due_looks(1.0) == [B]
    known.remove(B, 2.0)
    assert B not in known and known.change() is None


def test_a_node_that_was_removed_may_stay_after_all() -> None:
    known = members(A, B)
    known.remove(A, 5.0)
    known.add(A, 3.0, 5.5)
    assert state(known, A) is State.PRESENT and known.change() is None


def test_a_node_that_cannot_be_used_is_asked_again_later() -> None:
    known = members(A, B)
    known.left_out(A, "it has no room", 5.0)
    assert known.due_looks(5.0) == [] and known.due_looks(5.0 + RECONSIDER_S) == [A]


def test_a_node_lost_again_and_again_waits_longer_each_time_and_is_forgiven() -> None:
    known = members(A, B)
    waits = []
    for n in range(12):
        known.lost(A, "it fell silent", 100.0 + n)
        member = known.get(A)
        assert member is not None
        waits.append(max(0.0, member.waits_until() - (100.0 + n)))
    assert waits[:4] == [0.0, 2.0, 4.0, 8.0] and waits[-1] == MAX_PENALTY_S
    assert known.preferred([A, B], 112.0) == [[B], [A, B]], "used only where it has to be"
    late = 111.0 + 13 * DECAY_S
    known.lost(A, "it fell silent", late)
    assert known.preferred([A, B], late) == [[A, B]]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["lost", "answers", "silent", "drains", "add", "remove", "session"]),
        st.sampled_from([A, B, C]),
        st.floats(0.0, 10.0),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_whatever_happens_only_answering_nodes_are_planned_with(
    events: list[tuple[str, Address, float]],
) -> None:
    """And a change that is told leads to another session: it never asks for the same again."""
    known, now, answering = members(A, B), 0.0, {A, B}
    for what, address, pause in events:
        now += pause
        if what == "lost":
            answering.discard(address)
            known.lost(address, "lost", now)
            known.ended(now)
            known.began([a for a in answering if a in known], now)
        elif what == "answers" and state_or_none(known, address) in (State.AWAY, State.LEFT_OUT):
            answering.add(address)
            known.joins(address, now)
        elif what == "silent" and state_or_none(known, address) in (State.AWAY, State.JOINING):
            answering.discard(address)
            known.silent(address, "silent", now)
        elif what == "drains" and state_or_none(known, address) is State.PRESENT:
            known.drains(address, "it is to end", now, is_needed=False)
            answering.discard(address)
        elif what == "add" and address not in known:
            known.add(address, 1.0, now)
            answering.discard(address)
        elif what == "remove" and address in known:
            known.remove(address, now)
        elif what == "session" and known.change() is not None:
            known.ended(now)
            begin_best(known, answering, now)
            assert known.change() is None
        for addresses in known.preferred(answering, now):
            assert set(addresses) <= answering
            assert all(a in known for a in addresses)
        for address in known.due_looks(now):
            member = known.get(address)
            assert member is not None and member.state in (State.AWAY, State.LEFT_OUT)
            assert member.waits_until() <= now


def state_or_none(known: Members, address: Address) -> State | None:
    member = known.get(address)
    return None if member is None else member.state


def begin_best(known: Members, answering: set[Address], now: float) -> None:
    chosen = known.preferred(answering, now)[0]
    assert set(chosen) <= answering
    known.began(chosen, now)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 20.0))
def test_a_flapping_node_changes_the_session_ever_more_seldom(period_s: float) -> None:
    """It answers at once after each loss, and is lost `period_s` after it was taken back."""
    known, now, n_taken = members(A, B), 0.0, 0
    while now < 1_000.0:
        now += period_s
        known.lost(A, "lost", now)
        known.ended(now)
        known.began(known.preferred([A, B], now)[0], now)
        while state(known, A) is not State.PRESENT:
            now += 1.0
            if A in known.due_looks(now):
                known.joins(A, now)
                known.ended(now)
                known.began(known.preferred([A, B], now)[0], now)
        n_taken += 1
    assert n_taken <= 12 + 1_000.0 / (DECAY_S - 10.0)
