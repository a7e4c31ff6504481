"""The KV cache: pages are allocated to sequences, found again by their contents, and shifted.

What a sequence finds is what layers of all kinds have: the keys and values of its first tokens, and
where layers have a window or keep states, all that these need to go on after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dllama.engine.kv.layer_pages import GONE, Found, LayerPages, Move
from dllama.engine.kv.pages import PagePool, pages_for
from dllama.engine.kv.sequence_states import SequenceStates
from dllama.engine.kv.sessions import Sessions
from dllama.engine.kv.states import KeptState
from dllama.engine.sequence import Sequence
from dllama.kv import KvShift
from dllama.step import NO_ROWS, NO_SLOT, PAGE_TOKENS
from dllama.windows import NO_WINDOWS, Windows


class _Beginning(NamedTuple):
    """What is cached of a sequence's first tokens."""

    n_tokens: int = 0
    n_shared: int = 0  # tokens found in the pages of layers that see everything
    state: KeptState | None = None  # after these tokens, where layers keep states


class KvCache:
    """The pages of all layers as sequences use them, and the states of those that keep some."""

    def __init__(
        self, n_pages: int, max_len: int, n_slots: int = 0, windows: Windows = NO_WINDOWS
    ) -> None:
        self.full = LayerPages(n_pages)  # of layers that see all earlier tokens
        self.windows = LayerPages(windows.n_pages, windows.n_tokens) if windows.n_pages else None
        self.states = SequenceStates(n_slots)
        self.kinds = [self.full] if self.windows is None else [self.full, self.windows]
        self.sessions = Sessions(self.kinds)
        self._max_len = max_len

    @property
    def pool(self) -> PagePool:
        """The pages of layers that see all earlier tokens: every sequence has one for each 32."""
        return self.full.pool

    def emptied(self, n_pages: int, max_len: int, windows: Windows) -> KvCache:
        """Returns a cache of this size without contents, which knows the same sessions by name."""
        empty = KvCache(n_pages, max_len, self.states.pool.n_slots, windows)
        self.sessions.tell(empty.sessions)
        return empty

    def admit(self, sequence: Sequence, n_spare: int) -> bool:
        """Gives a sequence pages for all its tokens, cached ones where there are any, if `n_spare`
        more stay free; else returns False and changes nothing. Of layers with a window it gets the
        pages of one window."""
        n_context, begin = self._n_context(sequence), self._find(sequence)
        kept = self._kept(sequence)
        founds = [
            kind.found(sequence, begin.n_tokens, kept) if begin.n_tokens else Found(0, [])
            for kind in self.kinds
        ]
        both = list(zip(self.kinds, founds, strict=True))
        if not all(kind.can_admit(found, n_context, n_spare) for kind, found in both):
            return False
        if not self.states.admit(sequence, begin.state, begin.n_shared):
            return False
        for kind, found in both:
            kind.admit(sequence, found, n_context)
        sequence.n_computed, sequence.n_shared = begin.n_tokens, begin.n_shared
        sequence.n_published = begin.n_tokens // PAGE_TOKENS
        if not sequence.has_run:
            sequence.has_run, sequence.n_cached = True, sequence.n_computed
        return True

    def take_copies(self) -> list[list[tuple[int, int]]]:
        """The copies of pages that the ranks have to do before the next step, in order: those of
        layers that see everything, and of those with a window."""
        copies = [kind.take_copies() for kind in self.kinds]
        return copies if self.windows is not None else [*copies, []]

    def n_ready(self, sequence: Sequence) -> int:
        """Pending tokens of a running sequence that can be computed before it has to shift."""
        room = self._max_len - 1 - self._n_held(sequence)
        return min(sequence.n_pending, room) if sequence.may_shift else sequence.n_pending

    def can_grow(self, sequence: Sequence) -> bool:
        """Whether the pages are free that a running sequence lacks for its next token."""
        return all(
            kind.n_missing(sequence, n) <= kind.pool.n_free for kind, n in self._next(sequence)
        )

    def grow(self, sequence: Sequence) -> None:
        """Gives a sequence the pages of `can_grow`, which have to be free."""
        for kind, n in self._next(sequence):
            kind.reserve(sequence, n, 0)

    def n_ahead(self, sequence: Sequence) -> int:
        """Tokens that a decoding sequence has room for after its newest one, before its context is
        full or it has to shift."""
        return max(0, self._max_len - 1 - self._n_context(sequence))

    def reserve(self, sequence: Sequence, n: int, n_spare: int) -> int:
        """Gives a sequence pages for up to `n` draft tokens after its newest one, as long as more
        than `n_spare` are free; returns the number of tokens that have room. They are unpublished
        until accepted."""
        n_context = self._n_context(sequence)
        rooms = [kind.reserve(sequence, n_context + n, n_spare) for kind in self.kinds]
        return min(n, *(room - n_context for room in rooms))

    def open_window(self, sequence: Sequence, n: int, n_spare: int) -> int:
        """Gives a sequence the pages of layers with a window for its next `n` tokens, as long as
        more than `n_spare` are free; returns the number of tokens that have room."""
        if self.windows is None:
            return n
        n_held = self._n_held(sequence)
        return min(n, self.windows.reserve(sequence, n_held + n, n_spare) - n_held)

    def note_computed(self, sequence: Sequence, n: int) -> None:
        """Records that the next `n` tokens of a sequence are computed, and publishes pages that are
        full, and all of a prompt as soon as it is computed. Pages before a window are released."""
        n_before = sequence.n_computed
        sequence.n_computed += n
        self.states.note_computed(sequence)
        if sequence.is_shared and not sequence.n_dropped:
            # Keys and values after dropped tokens would be of use to no other sequence.
            self._publish_full(sequence)
            if n_before < sequence.n_prompt <= sequence.n_computed:
                self._publish_rest(sequence)
        if self.windows is not None:
            goals = sequence.n_prompt - 1, sequence.n_shared
            kept = self._kept(sequence)
            self.windows.leave_behind(sequence, self._n_held(sequence), kept, goals)

    def leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence, and its state; what is published can be found until it
        is evicted."""
        self.states.leave(sequence)
        if sequence.pages and sequence.is_shared and not sequence.n_dropped:
            keys = self._publish_rest(sequence)
            if sequence.session_id is not None:
                tokens = sequence.tokens[: sequence.n_computed]
                self.sessions.note(sequence.session_id, tokens, keys)
        for kind in self.kinds:
            kind.leave(sequence)
        sequence.forget_pages()

    def adopt(self, session_id: str, tokens: list[int], held: list[list[int]], slot: int) -> None:
        """Publishes owned pages that hold these tokens' keys and values, as those of a session, and
        keeps the state after them that is in an owned slot. `held` are the pages of each kind of
        layers; those with a window lack the first ones."""
        keys: list[bytes] = []
        for i in range(pages_for(len(tokens))):
            here = tokens[i * PAGE_TOKENS : (i + 1) * PAGE_TOKENS]
            before = keys[-1] if keys else b""
            for kind, pages in zip(self.kinds, held, strict=True):
                at = i - pages_for(len(tokens)) + len(pages)
                key = kind.pool.publish(pages[at], before, here) if at >= 0 else b""
                keys += [key] if kind is self.full else []
        if slot != NO_SLOT:
            self.states.pool.keep(slot, keys[-1], len(tokens))
        self.sessions.note(session_id, tokens, keys)

    # ---- a full context
    def is_full(self, sequence: Sequence) -> bool:
        """Whether a sequence has to shift before more of it can be computed."""
        is_full = self._n_held(sequence) == self._max_len - 1
        return sequence.may_shift and is_full and sequence.n_pending > 0

    def can_shift(self, sequence: Sequence) -> bool:
        """Whether the pages are free that a shift needs, to replace pages that it would write and
        others read."""
        move = self._move(sequence)
        return all(k.n_for_shift(sequence, move) <= k.pool.n_free for k in self.kinds)

    def shift(self, sequence: Sequence) -> KvShift:
        """Drops the older half of the tokens after the first n_keep, and returns the shift that
        the ranks have to do before the next step. The pages of `can_shift` have to be free."""
        n_held, move = self._n_held(sequence), self._move(sequence)
        pages = [kind.shift(sequence, move) for kind in self.kinds]
        sequence.n_dropped += move.n_drop
        before, after = pages[0]
        old, new = pages[1] if self.windows is not None else (NO_ROWS, NO_ROWS)
        return KvShift(
            n_tokens=n_held,
            n_keep=move.n_keep,
            n_drop=move.n_drop,
            from_pages=np.array(before[: pages_for(n_held)], np.int32),
            to_pages=np.array(after, np.int32),
            from_window_pages=np.array(old[: pages_for(n_held)], np.int32),
            to_window_pages=np.array(new, np.int32),
        )

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError where pages and sequences contradict each other."""
        sequences = list(running)
        self.states.check_integrity(sequences)
        for kind in self.kinds:
            kind.pool.check_integrity()
            held = [[page for page in kind.of(s) if page != GONE] for s in sequences]
            owners = Counter(page for pages in held for page in pages)
            assert len(owners) == kind.pool.n_used, "a page is owned by nobody that runs"
            for page, n in owners.items():
                known = kind.pool.n_owners(page)
                assert known == n, f"page {page} has {n} owners and does not know"
            assert all(len(set(pages)) == len(pages) for pages in held), "a page is there twice"

    def _find(self, sequence: Sequence) -> _Beginning:
        """What is cached of a sequence. Its last token is never taken from the cache: its logits
        are needed. Nor is a context full of it, so that its pages are copied by a step before they
        are shifted."""
        if not sequence.is_shared:
            return _Beginning()
        n_known = min(len(sequence.tokens), self._max_len - 1) - 1
        n = n_shared = self.full.longest(sequence, n_known)
        if self.windows is not None:
            n = self.windows.longest(sequence, n, self._kept(sequence))
        if not self.states.is_needed:
            return _Beginning(n, n_shared)
        assert self.windows is None, "no family has both states and windows"
        kept = next(iter(self.states.found(sequence, n)), None)
        return _Beginning(0 if kept is None else kept.n_tokens, n_shared, kept)

    def _publish_full(self, sequence: Sequence) -> None:
        n_full = sequence.n_computed // PAGE_TOKENS
        for i in range(sequence.n_published, n_full):
            self._publish(sequence, i)
        sequence.n_published = n_full

    def _publish_rest(self, sequence: Sequence) -> list[bytes]:
        """Publishes the unfinished last page; returns the keys of all computed tokens."""
        n_full, n_rest = divmod(sequence.n_computed, PAGE_TOKENS)
        keys = sequence.page_keys(n_full)
        return [*keys, self._publish(sequence, n_full)] if n_rest else keys

    def _publish(self, sequence: Sequence, i: int) -> bytes:
        """Publishes the computed tokens of the sequence's pages `i`; returns their key."""
        keys = [kind.publish(sequence, i) for kind in self.kinds]
        return keys[0]

    def _next(self, sequence: Sequence) -> list[tuple[LayerPages, int]]:
        """Each kind of layers, and the tokens that it needs room for now: all that a sequence has,
        or with a window those up to the next one."""
        n_context = self._n_context(sequence)
        n_next = min(n_context, self._n_held(sequence) + 1)
        return [(kind, n_next if kind.window else n_context) for kind in self.kinds]

    def _n_context(self, sequence: Sequence) -> int:
        """Tokens of a sequence that need room in pages at the same time."""
        return min(len(sequence.tokens) - sequence.n_dropped, self._max_len)

    def _n_held(self, sequence: Sequence) -> int:
        """Computed tokens of a sequence that are in its context."""
        return sequence.n_computed - sequence.n_dropped

    def _move(self, sequence: Sequence) -> Move:
        """The next shift of a sequence, which drops half of the tokens that it may, at least one;
        four at least remain beside those that it keeps."""
        n_held = self._max_len - 1
        n_keep = max(0, min(sequence.n_keep, self._max_len - 4))
        n_drop = max(1, (n_held - n_keep) // 2)
        return Move(n_keep, n_drop, n_held - n_drop)

    def _kept(self, sequence: Sequence) -> range:
        """The pages of tokens that no shift drops and that rows after a shift see, which a sequence
        keeps although its window has passed them."""
        if self.windows is None or not sequence.may_shift:
            return range(0)
        move = self._move(sequence)
        return range(self.windows.first_seen(move.n_after), pages_for(move.n_keep))
