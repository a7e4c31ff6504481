"""Log lines that strangers can cause: one a peer and kind, then a count. The clock is an
argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

COUNT_EVERY_S = 60.0
MAX_KEYS = 256  # further peers are counted together
OTHERS = ("other peers", "this and that")


@dataclass(slots=True)
class _Seen:
    """The occurrences of one key that are not told yet, and since when."""

    n_untold: int
    since: float


class Repeats:
    """Decides which occurrences are told one by one, and counts the others."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def is_first(self, peer: str, kind: str, now: float) -> bool:
        """Records an occurrence; returns whether it is one to tell, and not only to count."""
        key = (peer, kind)
        if key not in self._seen and len(self._seen) >= MAX_KEYS:
            key = OTHERS
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(0, now)
            return True
        seen.n_untold += 1
        return False

    def due(self, now: float) -> Iterator[str]:
        """Yields a sentence for each key that was only counted for COUNT_EVERY_S; forgets those
        that have been quiet."""
        for (peer, kind), seen in list(self._seen.items()):
            if now - seen.since < COUNT_EVERY_S:
                continue
            if seen.n_untold:
                yield f"{peer}: {kind}, {seen.n_untold} times more in {now - seen.since:.0f} s"
                seen.n_untold, seen.since = 0, now
            else:
                del self._seen[peer, kind]
