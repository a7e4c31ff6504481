"""Slots of states: each is in one place, and none goes that is still to be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.kv.states import KeptState, StatePool


def test_kept_states_are_found_until_their_slots_are_needed() -> None:
    pool = StatePool(3)
    slots = [pool.allocate() for _ in range(3)]
    assert slots == [0, 1, 2] and pool.allocate() is None
    pool.keep(0, b"first", 40)
    pool.keep(1, b"second", 7)
    assert [kept.n_tokens for kept in pool.longest_first()] == [40, 7]
    [first, _] = pool.longest_first()
    pool.begin_reading(first)  # used last, and not to be evicted either
    assert pool.allocate() == 1 and b"second" not in pool
    assert pool.allocate() is None and pool.n_free == 0
    pool.end_reading(first)
    assert pool.n_free == 1 and pool.allocate() == 0
    pool.check_integrity([0, 1, 2])


def test_a_state_of_the_same_tokens_is_kept_once() -> None:
    pool = StatePool(2)
    for slot in (pool.allocate(), pool.allocate()):
        assert slot is not None
        pool.keep(slot, b"same", 5)
    assert pool.longest_first() == [KeptState(0, b"same", 5)]
    assert pool.allocate() == 1


def test_the_only_state_can_be_taken_over() -> None:
    """Unless others are still to read it."""
    pool = StatePool(1)
    slot = pool.allocate()
    assert slot is not None
    pool.keep(slot, b"key", 9)
    [kept] = pool.longest_first()
    pool.begin_reading(kept)
    assert pool.take(kept) is None
    pool.end_reading(kept)
    assert pool.take(kept) == slot and b"key" not in pool
    pool.check_integrity([slot])
    with pytest.raises(AssertionError):
        pool.check_integrity([])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_no_slot_is_ever_lost(turns: list[tuple[int, int]]) -> None:
    pool, owned, reading = StatePool(4), [], []
    for turn, which in turns:
        if turn == 0 and (slot := pool.allocate()) is not None:
            owned.append(slot)
        elif turn == 1 and owned:
            pool.release(owned.pop(which % len(owned)))
        elif turn == 2 and owned:
            pool.keep(owned.pop(which % len(owned)), bytes([which]), which + 1)
        elif turn == 3 and pool.n_kept:
            reading.append(pool.longest_first()[which % pool.n_kept])
            pool.begin_reading(reading[-1])
        elif turn == 4 and reading:
            pool.end_reading(reading.pop(which % len(reading)))
        elif turn == 5 and pool.n_kept:
            slot = pool.take(pool.longest_first()[which % pool.n_kept])
            owned += [slot] if slot is not None else []
        pool.check_integrity(owned)
        n_held = len({kept.key for kept in reading})
        assert pool.n_free == 4 - len(owned) - n_held
