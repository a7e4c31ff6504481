"""Who gets a session, and the nonce it takes."""

from __future__ import annotations

import pytest

from cluster.meeting_times import JOIN_DEADLINE_S
from cluster.worker.challenge import VALID_S, Challenge
from cluster.worker.slots import (
    DEFAULT_SESSIONS,
    MAX_WAITING,
    MOST_SESSIONS,
    OPENS_BURST,
    Slots,
)

GB = 10**9


def refusal(slots: Slots, host: str = "a", needed: int = 0, now: float = 0.0) -> str | None:
    return slots.refusal(host, needed, 10 * GB, {}, now)


def test_memory_that_is_promised_is_not_promised_again() -> None:
    slots = Slots()
    slots.take(1, "a", 6 * GB, 0.0)
    reason = refusal(slots, "b", 5 * GB)
    assert reason is not None and "5.00 GB of memory are needed" in reason
    assert "6.00 GB of them promised" in reason
    assert refusal(slots, "b", 4 * GB) is None
    # Once it is taken it is no longer free either, and counts once.
    assert slots.refusal("b", 4 * GB, 4 * GB, {1: 6 * GB}, 0.0) is None
    assert (slots.promised_bytes({}), slots.promised_bytes({1: 2 * GB})) == (6 * GB, 4 * GB)
    slots.free(1)
    assert refusal(slots, "b", 10 * GB) is None


def test_one_host_leaves_room_for_others() -> None:
    """A router of four models and further roots on one machine: what is refused names the flag."""
    slots = Slots()
    for epoch in range(12):
        assert refusal(slots) is None
        slots.take(epoch, "a", 0, 0.0)
        slots.joined(epoch)
    reason = refusal(slots)
    assert reason is not None and "at most 16 and 12 are" in reason and "--max-sessions" in reason
    assert refusal(slots, "b") is None


def test_sessions_in_all_are_bounded() -> None:
    slots = Slots()
    for epoch in range(DEFAULT_SESSIONS):
        slots.take(epoch, f"host {epoch}", 0, 0.0)
    assert "16 sessions are open" in str(refusal(slots, "another"))


@pytest.mark.parametrize("most", [1, 2, MOST_SESSIONS])
def test_a_daemon_opens_as_many_as_it_is_told(most: int) -> None:
    slots = Slots(most)
    for epoch in range(most):
        assert refusal(slots, f"host {epoch}") is None
        slots.take(epoch, f"host {epoch}", 0, 0.0)
    assert f"at most {most} and" in str(refusal(slots, "another"))


def test_sessions_that_nobody_joins_take_few_slots_and_end() -> None:
    slots = Slots()
    for epoch in range(MAX_WAITING):
        slots.take(epoch, "a", 0, 0.0)
    assert "wait to be joined" in str(refusal(slots))
    slots.joined(0)
    assert refusal(slots) is None
    assert list(slots.overdue(JOIN_DEADLINE_S)) == []
    assert list(slots.overdue(JOIN_DEADLINE_S + 1)) == list(range(1, MAX_WAITING))


def test_a_host_that_opens_without_end_waits() -> None:
    slots = Slots()
    for epoch in range(round(OPENS_BURST)):
        assert refusal(slots) is None
        slots.take(epoch, "a", 0, 0.0)
        slots.free(epoch)
    assert refusal(slots) is not None
    assert refusal(slots, now=1.5) is None


def test_a_nonce_holds_for_its_host_and_its_time() -> None:
    challenge = Challenge(b"secret")
    nonce = challenge.issue("10.0.0.1", 0.0)
    assert challenge.accepts("10.0.0.1", nonce, VALID_S)
    assert not challenge.accepts("10.0.0.2", nonce, 0.0)
    assert not challenge.accepts("10.0.0.1", nonce, 2 * VALID_S)
    assert not challenge.accepts("10.0.0.1", "", 0.0)
    assert not challenge.accepts("10.0.0.1", "ä" * 32, 0.0)
    assert not Challenge(b"another").accepts("10.0.0.1", nonce, 0.0)


def test_one_session_that_has_not_loaded_is_enough_to_be_loading() -> None:
    slots = Slots()
    assert not slots.is_loading
    slots.take(1, "a", 0, 0.0)
    slots.take(2, "b", 0, 0.0)
    slots.loaded(1)
    assert slots.is_loading
    slots.loaded(2)
    assert not slots.is_loading
    slots.take(3, "a", 0, 0.0)
    slots.free(3)
    slots.loaded(3)  # it has ended meanwhile
    assert not slots.is_loading
