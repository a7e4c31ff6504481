"""Conversations by name, whose pages are evicted last. Knows keys and counts, no requests.

Sessions pin a bounded share of the pool, so that old ones cannot fill the cache: the least recently
used session is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dllama.engine.kv.pages import PagePool

PINNED_SHARE = 2  # sessions pin at most 1 / PINNED_SHARE of the pool
MAX_SESSIONS = 4096  # sessions known at most: short ones may share all their pages


@dataclass(frozen=True, slots=True)
class Session:
    """The computed tokens of a conversation when its last sequence ended."""

    tokens: list[int]
    keys: list[bytes]  # of its pages; the last may be a tail
    n_pinned: int  # pinned keys, from the first on


class Sessions:
    """The sessions whose pages a pool pins."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._max_pinned = pool.n_pages // PINNED_SHARE
        self._n_pinned = 0
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def note(self, name: str, tokens: Sequence[int], keys: Sequence[bytes]) -> None:
        """Records the tokens of a session, in the pages of these keys, in place of what was known
        of it: also a shorter branch, which is what the user saw last."""
        self.forget(name)
        n_pinned = min(len(keys), self._max_pinned)
        while self._sessions and (
            self._n_pinned + n_pinned > self._max_pinned or len(self._sessions) == MAX_SESSIONS
        ):
            self.forget(next(iter(self._sessions)))
        self._sessions[name] = Session(list(tokens), list(keys), n_pinned)
        self._n_pinned += n_pinned
        self._pool.pin(keys[:n_pinned])

    def tell(self, others: Sessions) -> None:
        """Records all of these sessions in `others`, in the same order of use. Their pages need not
        be there: they are pinned once they are computed again."""
        for name, session in self._sessions.items():
            others.note(name, session.tokens, session.keys)

    def forget(self, name: str) -> Session | None:
        """Forgets a session and its pins; returns it, or None."""
        session = self._sessions.pop(name, None)
        if session is not None:
            self._n_pinned -= session.n_pinned
            self._pool.unpin(session.keys[: session.n_pinned])
        return session
