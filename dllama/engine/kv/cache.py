"""The KV cache: pages are allocated to sequences, found again by their contents, and shifted.

A page that several sequences own, or that others can find, is full and is never written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from dllama.engine.kv.index import Tail, page_key
from dllama.engine.kv.pages import PagePool, pages_for
from dllama.engine.kv.sessions import Sessions
from dllama.engine.sequence import Sequence
from dllama.kv import KvShift
from dllama.step import PAGE_TOKENS


class KvCache:
    """The pool of pages as sequences use it."""

    def __init__(self, n_pages: int, max_len: int) -> None:
        self.pool = PagePool(n_pages)
        self.sessions = Sessions(self.pool)
        self._max_len = max_len

    def admit(self, sequence: Sequence, n_spare: int) -> bool:
        """Gives a sequence pages for all its tokens, cached ones where there are any, if `n_spare`
        more stay free; else returns False and changes nothing."""
        pool, n_wanted = self.pool, pages_for(self._n_context(sequence))
        shared, tail = self._find(sequence)
        n_held = len(shared) + (tail is not None)
        n_unowned = pool.n_unowned(shared) + (tail is not None)
        if n_wanted - n_held + n_unowned + n_spare > pool.n_free:
            return False
        pool.retain(shared)
        sequence.pages.extend(shared)
        sequence.n_published = len(shared)
        sequence.n_computed = len(shared) * PAGE_TOKENS
        if tail is not None:
            pool.take(tail.page)
            sequence.pages.append(tail.page)
            sequence.n_computed += tail.n
        if not sequence.n_generated:
            sequence.n_cached = sequence.n_computed
        self._give(sequence, n_wanted - n_held)
        return True

    def n_ready(self, sequence: Sequence) -> int:
        """Pending tokens of a running sequence that can be computed before it has to shift."""
        n_held = sequence.n_computed - sequence.n_dropped
        room = self._max_len - 1 - n_held
        return min(sequence.n_pending, room) if sequence.may_shift else sequence.n_pending

    def n_missing(self, sequence: Sequence) -> int:
        """Pages that a running sequence lacks for its newest token."""
        return max(0, pages_for(self._n_context(sequence)) - len(sequence.pages))

    def n_ahead(self, sequence: Sequence) -> int:
        """Tokens that a decoding sequence has room for after its newest one, before its context is
        full or it has to shift."""
        return max(0, self._max_len - 1 - self._n_context(sequence))

    def reserve(self, sequence: Sequence, n: int, n_spare: int) -> int:
        """Gives a sequence pages for up to `n` draft tokens after its newest one, as long as more
        than `n_spare` are free; returns the number of tokens that have room. They are unpublished
        until accepted."""
        n_context = self._n_context(sequence)
        n_wanted = pages_for(n_context + n) - len(sequence.pages)
        n_given = max(0, min(n_wanted, self.pool.n_free - n_spare))
        self._give(sequence, n_given)
        return min(n, len(sequence.pages) * PAGE_TOKENS - n_context)

    def grow(self, sequence: Sequence) -> None:
        """Gives a sequence the pages of `n_missing`, which have to be free."""
        self._give(sequence, self.n_missing(sequence))

    def note_computed(self, sequence: Sequence, n: int) -> None:
        """Records that the next `n` tokens of a sequence are computed, and publishes full
        pages."""
        sequence.n_computed += n
        if not sequence.is_shared or sequence.n_dropped:
            return  # keys and values after dropped tokens are of use to no other sequence
        n_full = sequence.n_computed // PAGE_TOKENS
        if n_full > sequence.n_published:
            keys = sequence.page_keys(n_full)
            for i in range(sequence.n_published, n_full):
                self.pool.publish(sequence.pages[i], keys[i])
            sequence.n_published = n_full

    def leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence; published ones can be found until they are evicted."""
        if sequence.pages and sequence.is_shared and not sequence.n_dropped:
            keys = self._publish_tail(sequence)
            if sequence.session_id is not None:
                tokens = sequence.tokens[: sequence.n_computed]
                self.sessions.note(sequence.session_id, tokens, keys)
        self.pool.release(sequence.pages)
        del sequence.pages[:]
        sequence.n_computed = sequence.n_published = sequence.n_dropped = 0

    def adopt(self, session_id: str, tokens: list[int], pages: list[int]) -> None:
        """Publishes owned pages that hold these tokens' keys and values, as those of a session."""
        n_full, n_rest = divmod(len(tokens), PAGE_TOKENS)
        keys: list[bytes] = []
        for i in range(n_full):
            here = tokens[i * PAGE_TOKENS : (i + 1) * PAGE_TOKENS]
            keys.append(page_key(keys[-1] if keys else b"", here))
            self.pool.publish(pages[i], keys[-1])
        if n_rest:
            before = keys[-1] if keys else b""
            keys.append(self.pool.publish_tail(pages[n_full], before, tokens[-n_rest:]))
        self.sessions.note(session_id, tokens, keys)

    # ---- a full context
    def is_full(self, sequence: Sequence) -> bool:
        """Whether a sequence has to shift before more of it can be computed."""
        n_held = sequence.n_computed - sequence.n_dropped
        return sequence.may_shift and n_held == self._max_len - 1 and sequence.n_pending > 0

    def n_for_shift(self, sequence: Sequence) -> int:
        """Free pages that a shift needs, to replace pages that it would write and others read."""
        changed = sequence.pages[self._n_kept(sequence) // PAGE_TOKENS :]
        n_kept_pages = len(sequence.pages) - len(changed)
        n_after = pages_for(self._n_after(sequence)) - n_kept_pages
        return sum(self.pool.n_owners(page) > 1 for page in changed[:n_after])

    def shift(self, sequence: Sequence) -> KvShift:
        """Drops the older half of the tokens after the first n_keep, and returns the shift that
        the ranks have to do before the next step. The pages of `n_for_shift` have to be free."""
        n_held = sequence.n_computed - sequence.n_dropped
        n_keep, n_after = self._n_kept(sequence), self._n_after(sequence)
        before = list(sequence.pages)
        after = before[: pages_for(n_after)]
        for i in range(n_keep // PAGE_TOKENS, len(after)):
            if self.pool.n_owners(after[i]) == 1:
                self.pool.unpublish(after[i])
            else:
                fresh = self.pool.allocate(1)
                assert fresh is not None, "pages are counted before they are taken"
                [after[i]] = fresh
        self.pool.release([page for page in before if page not in after])
        del sequence.pages[:]
        sequence.pages.extend(after)
        sequence.n_dropped += n_held - n_after
        return KvShift(
            n_tokens=n_held,
            n_keep=n_keep,
            n_drop=n_held - n_after,
            from_pages=np.array(before[: pages_for(n_held)], np.int32),
            to_pages=np.array(after, np.int32),
        )

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError where pages and sequences contradict each other."""
        self.pool.check_integrity()
        sequences = list(running)
        owners = Counter(page for sequence in sequences for page in sequence.pages)
        assert len(owners) == self.pool.n_used, "a page is owned by nobody that runs"
        for page, n in owners.items():
            assert self.pool.n_owners(page) == n, f"page {page} has {n} owners and does not know"
        for sequence in sequences:
            assert len(set(sequence.pages)) == len(sequence.pages), "a sequence has a page twice"

    def _find(self, sequence: Sequence) -> tuple[list[int], Tail | None]:
        """The cached pages of a sequence's first tokens, and the unfinished page after them. The
        last token is never taken from the cache: its logits are needed."""
        if not sequence.is_shared:
            return [], None
        n_known = min(len(sequence.tokens), self._max_len) - 1
        keys = sequence.page_keys(n_known // PAGE_TOKENS)
        shared = self.pool.find(keys)
        begin = len(shared) * PAGE_TOKENS
        wanted = sequence.tokens[begin : min(begin + PAGE_TOKENS, n_known)]
        before = keys[len(shared) - 1] if shared else b""
        return shared, self.pool.find_tail(before, wanted)

    def _publish_tail(self, sequence: Sequence) -> list[bytes]:
        """Publishes the unfinished last page; returns the keys of all computed tokens."""
        n_full, n_rest = divmod(sequence.n_computed, PAGE_TOKENS)
        keys = sequence.page_keys(n_full)
        if n_rest == 0:
            return keys
        before = keys[-1] if keys else b""
        tokens = sequence.tokens[n_full * PAGE_TOKENS : sequence.n_computed]
        return [*keys, self.pool.publish_tail(sequence.pages[n_full], before, tokens)]

    def _n_context(self, sequence: Sequence) -> int:
        """Tokens of a sequence that need room in pages at the same time."""
        return min(len(sequence.tokens) - sequence.n_dropped, self._max_len)

    def _n_kept(self, sequence: Sequence) -> int:
        """Tokens that no shift drops; at least four others remain."""
        return max(0, min(sequence.n_keep, self._max_len - 4))

    def _n_after(self, sequence: Sequence) -> int:
        """Tokens in the pages after a shift, which drops half of those it may, at least one."""
        n_held = sequence.n_computed - sequence.n_dropped
        return n_held - max(1, (n_held - self._n_kept(sequence)) // 2)

    def _give(self, sequence: Sequence, n: int) -> None:
        pages = self.pool.allocate(n)
        assert pages is not None, "pages are counted before they are given"
        sequence.pages.extend(pages)
