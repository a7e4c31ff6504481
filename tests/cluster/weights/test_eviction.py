"""Which pieces go: the least recently used, none in use, and no more than makes room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.weights.eviction import IN_USE_S, SPARE_PART, Kept, allowed_bytes, to_evict

pieces = st.lists(
    st.builds(Kept, st.uuids().map(str), st.integers(0, 1000), st.floats(0, 10_000)), max_size=20
)


@given(pieces, st.integers(0, 1000), st.integers(0, 10_000), st.floats(0, 10_000))
def test_the_least_recently_used_make_room(
    kept: list[Kept], needed: int, limit: int, now: float
) -> None:
    kept = [piece for piece in kept if piece.used_s <= now]
    evicted = to_evict(kept, needed, limit, now)
    by_name = {piece.name: piece for piece in kept}
    left = [piece for piece in kept if piece.name not in evicted]
    assert all(now - by_name[name].used_s >= IN_USE_S for name in evicted)
    if evicted:
        newest = max(by_name[name].used_s for name in evicted)
        assert all(piece.used_s >= newest for piece in left)
        assert sum(piece.n_bytes for piece in kept) + needed > limit, "there was no need"
        before_last = sum(p.n_bytes for p in left) + by_name[evicted[-1]].n_bytes
        assert before_last + needed > limit - limit // SPARE_PART, "one too many"
    if sum(piece.n_bytes for piece in left) + needed > limit:
        assert all(now - piece.used_s < IN_USE_S for piece in left), "the others are in use"


def test_a_tenth_of_the_disk_stays_free() -> None:
    assert allowed_bytes(500, 100, 1000, 900) == 500
    assert allowed_bytes(900, 100, 1000, 300) == 300
    assert allowed_bytes(900, 0, 1000, 100) == 0
    assert allowed_bytes(900, 50, 1000, 20) == 0, "others have filled it beyond"
    assert allowed_bytes(0, 0, 1000, 900) == 0


def test_pieces_of_a_time_to_come_go_first() -> None:
    """The clock was wrong when they were used."""
    kept = [Kept("old", 10, 100.0), Kept("wrong", 10, 9000.0), Kept("new", 10, 999.0)]
    assert to_evict(kept, 10, 30, 1000.0) == ["wrong"]
    assert to_evict(kept, 20, 30, 1000.0) == ["wrong", "old"]
    assert to_evict([Kept("a", 10, 1030.0)], 10, 10, 1000.0) == [], "its disk's clock is ahead"
