"""Conversations by name, whose pages are evicted last. Knows keys and counts, no requests.

Sessions pin a bounded share of each pool, so that old ones cannot fill the cache: the least
recently used session is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dllama.engine.kv.layer_pages import LayerPages

PINNED_SHARE = 2  # sessions pin at most 1 / PINNED_SHARE of a pool
MAX_SESSIONS = 4096  # sessions known at most: short ones may share all their pages


@dataclass(frozen=True, slots=True)
class Session:
    """The computed tokens of a conversation when its last sequence ended."""

    tokens: list[int]
    keys: list[bytes]  # of its pages; the last may be a tail
    pinned: list[list[bytes]]  # of these, for each kind of layers

    def page_keys(self, n: int) -> list[bytes]:
        """The keys of the first `n` pages."""
        return self.keys[:n]

    def key_before(self, page: int) -> bytes:
        """The key of the tokens before the page of this number; empty for the first."""
        return self.keys[page - 1] if page else b""


class Sessions:
    """The sessions whose pages are pinned in the pools of all kinds of layers."""

    def __init__(self, kinds: Sequence[LayerPages]) -> None:
        self._kinds = kinds
        self._max_pinned = [kind.pool.n_pages // PINNED_SHARE for kind in kinds]
        self._n_pinned = [0] * len(kinds)
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def note(self, name: str, tokens: Sequence[int], keys: Sequence[bytes]) -> None:
        """Records the tokens of a session, in the pages of these keys, in place of what was known
        of it: also a shorter branch, which is what the user saw last."""
        self.forget(name)
        pinned = [
            list(keys[kind.first_seen(len(tokens)) :][:n_most])
            for kind, n_most in zip(self._kinds, self._max_pinned, strict=True)
        ]
        while self._sessions and (
            not self._have_room(pinned) or len(self._sessions) == MAX_SESSIONS
        ):
            self.forget(next(iter(self._sessions)))
        self._sessions[name] = Session(list(tokens), list(keys), pinned)
        for i, (kind, its_keys) in enumerate(zip(self._kinds, pinned, strict=True)):
            self._n_pinned[i] += len(its_keys)
            kind.pool.pin(its_keys)

    def tell(self, others: Sessions) -> None:
        """Records all of these sessions in `others`, in the same order of use. Their pages need not
        be there: they are pinned once they are computed again."""
        for name, session in self._sessions.items():
            others.note(name, session.tokens, session.keys)

    def forget(self, name: str) -> Session | None:
        """Forgets a session and its pins; returns it, or None."""
        session = self._sessions.pop(name, None)
        if session is not None:
            for i, (kind, keys) in enumerate(zip(self._kinds, session.pinned, strict=True)):
                self._n_pinned[i] -= len(keys)
                kind.pool.unpin(keys)
        return session

    def _have_room(self, pinned: Sequence[Sequence[bytes]]) -> bool:
        """Whether so many more keys may be pinned in each pool."""
        return all(
            n + len(keys) <= n_most
            for n, keys, n_most in zip(self._n_pinned, pinned, self._max_pinned, strict=True)
        )
