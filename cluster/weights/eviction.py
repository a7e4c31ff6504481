"""Decides which kept pieces make room for new ones. Knows no files and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

IN_USE_S = 300.0  # a piece used within this time may be one that a process is about to read
AHEAD_S = 60.0  # that the clocks of a disk may be ahead of ours
SPARE_PART = 32  # one part in so many is freed beyond what is needed: the next piece finds room


class Kept(NamedTuple):
    """A piece on disk; `used_s` is when it was last read or written."""

    name: str
    n_bytes: int
    used_s: float


def to_evict(kept: Iterable[Kept], needed_bytes: int, max_bytes: int, now_s: float) -> list[str]:
    """Returns the pieces to remove, the least recently used first, so that `needed_bytes` more stay
    within max_bytes; pieces in use are never among them, so that it may be too few."""
    # A time in the future is of a clock that was wrong: such a piece was used at no known time.
    oldest_first = sorted(kept, key=lambda piece: piece.used_s * (piece.used_s <= now_s + AHEAD_S))
    surplus = sum(piece.n_bytes for piece in oldest_first) + needed_bytes - max_bytes
    if surplus <= 0:
        return []
    surplus += max_bytes // SPARE_PART
    evicted = []
    for piece in oldest_first:
        if surplus <= 0 or -AHEAD_S <= now_s - piece.used_s < IN_USE_S:
            break
        evicted.append(piece.name)
        surplus -= piece.n_bytes
    return evicted


def allowed_bytes(max_bytes: int, kept_bytes: int, disk_bytes: int, free_bytes: int) -> int:
    """Returns the bytes that all pieces together may take: max_bytes at most, and a tenth of the
    disk stays free."""
    return max(0, min(max_bytes, kept_bytes + free_bytes - disk_bytes // 10))
