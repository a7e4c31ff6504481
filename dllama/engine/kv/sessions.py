"""Conversations by name, whose pages leave the cache last. Knows keys and counts, no requests.

What a session pins is bounded, so that the names of yesterday cannot fill the cache: the session
that was used longest ago loses its pins, and its name, first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dllama.engine.kv.pages import PagePool

PINNED_SHARE = 2  # sessions pin at most 1 / so much of the pool
MAX_SESSIONS = 4096  # names that are remembered; short conversations may share all their pages


@dataclass(frozen=True, slots=True)
class Session:
    """What was computed of a conversation when a sequence of it was last left."""

    tokens: list[int]
    keys: list[bytes]  # of its pages, the last of which may be a tail
    n_pinned: int  # the first so many keys


class Sessions:
    """The sessions whose pages a pool pins."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._max_pinned = pool.n_pages // PINNED_SHARE
        self._n_pinned = 0
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # used longest ago first

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def note(self, name: str, tokens: Sequence[int], keys: Sequence[bytes]) -> None:
        """A session consists of these tokens now, in the pages of these keys. A branch that is
        shorter than what was known takes its place too: it is what the user saw last."""
        self.forget(name)
        n_pinned = min(len(keys), self._max_pinned)
        while self._sessions and (
            self._n_pinned + n_pinned > self._max_pinned or len(self._sessions) == MAX_SESSIONS
        ):
            self.forget(next(iter(self._sessions)))
        self._sessions[name] = Session(list(tokens), list(keys), n_pinned)
        self._n_pinned += n_pinned
        self._pool.pin(keys[:n_pinned])

    def forget(self, name: str) -> Session | None:
        """Takes back a session's pins; what it was, or None."""
        session = self._sessions.pop(name, None)
        if session is not None:
            self._n_pinned -= session.n_pinned
            self._pool.unpin(session.keys[: session.n_pinned])
        return session
