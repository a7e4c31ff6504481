"""Who makes room for whom, and who is cut off."""

from __future__ import annotations

from cluster.front.budget import Budget
from cluster.front.guests import MAX_ADDRESSES, GuestLimits, Guests

LIMITS = GuestLimits(max_connections=5, max_per_address=3, max_offences=4, cut_off_s=10.0)


def test_the_oldest_stranger_of_an_address_makes_room_for_its_next() -> None:
    guests = Guests(LIMITS)
    assert [guests.enter(n, "10.0.0.1") for n in (1, 2, 3)] == [None] * 3
    assert guests.enter(4, "10.0.0.1") == 1
    guests.leave(1)
    guests.trusted = frozenset({2})
    assert guests.enter(5, "10.0.0.1") == 3


def test_where_all_are_trusted_the_newcomer_goes() -> None:
    guests = Guests(LIMITS)
    for n in (1, 2, 3):
        guests.enter(n, "10.0.0.1")
    guests.trusted = frozenset({1, 2, 3})
    assert guests.enter(4, "10.0.0.1") == 4


def test_in_all_the_address_with_most_strangers_makes_room() -> None:
    guests = Guests(LIMITS)
    for n, address in enumerate(["a", "b", "b", "b", "a"]):
        assert guests.enter(n, address) is None
    assert guests.enter(9, "c") == 1
    guests.leave(1)
    assert len(guests) == 5 and guests.least_wanted() in (0, 2)


def test_an_address_that_goes_on_is_cut_off_for_a_while() -> None:
    guests = Guests(LIMITS)
    assert [guests.offend("10.0.0.1", 0.0) for _ in range(5)] == [False] * 4 + [True]
    assert guests.is_cut_off("10.0.0.1", 9.9) and not guests.is_cut_off("10.0.0.2", 9.9)
    assert not guests.is_cut_off("10.0.0.1", 10.1)


def test_offences_are_forgotten_with_time_and_roots_of_this_machine_never_pay() -> None:
    guests = Guests(LIMITS)
    assert not any(guests.offend("10.0.0.1", 1.5 * i) for i in range(50))
    assert not any(guests.offend("127.0.0.1", 0.0) for _ in range(50))


def test_a_thousand_addresses_are_not_remembered_for_ever() -> None:
    guests = Guests(LIMITS)
    for i in range(2 * MAX_ADDRESSES):
        guests.offend(f"2001:db8::{i:x}", 0.0)
    assert len(guests._offences) == MAX_ADDRESSES


def test_a_budget_fills_with_time_up_to_its_burst() -> None:
    budget = Budget(per_s=2.0, burst=4.0, now=0.0)
    assert budget.left(0.0) == 4
    budget.spend(5, 0.0)  # the last unit was larger than it seemed
    assert budget.left(0.0) < 1 and budget.ready_at(0.0) == 1.0
    assert budget.left(1.0) == 1 and budget.left(100.0) == 4
    assert budget.ready_at(100.0) == 100.0
