"""Which pages hold which tokens of which sequence: found, given, published, shifted, left behind.

A page that more than one sequence owns, or that others can find, is full and is never written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from dllama.engine.kv.index import Tail, page_key
from dllama.engine.kv.pages import PagePool, pages_for
from dllama.engine.kv.sessions import Sessions
from dllama.engine.sequence import Sequence
from dllama.kv_shift import KvShift
from dllama.step import PAGE_TOKENS


class KvCache:
    """The pool of pages from the sequences' point of view."""

    def __init__(self, n_pages: int, max_len: int) -> None:
        self.pool = PagePool(n_pages)
        self.sessions = Sessions(self.pool)
        self._max_len = max_len

    def admit(self, sequence: Sequence, n_spare: int) -> bool:
        """Gives a sequence the pages of all its tokens, those that others have computed among
        them, if `n_spare` more are free; False, and no change, otherwise."""
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
        """Tokens of a running sequence that can be computed before it has to shift."""
        n_held = sequence.n_computed - sequence.n_dropped
        room = self._max_len - 1 - n_held
        return min(sequence.n_pending, room) if sequence.may_shift else sequence.n_pending

    def n_missing(self, sequence: Sequence) -> int:
        """Pages that a running sequence needs for its newest token."""
        return max(0, pages_for(self._n_context(sequence)) - len(sequence.pages))

    def n_ahead(self, sequence: Sequence) -> int:
        """Tokens that a sequence whose last token is to be computed has room for behind it,
        before its context is full or it has to shift."""
        return max(0, self._max_len - 1 - self._n_context(sequence))

    def reserve(self, sequence: Sequence, n: int, n_spare: int) -> int:
        """Gives a sequence pages for up to `n` tokens behind its newest, as long as more than
        `n_spare` are free; the tokens that have room. What is written there stays its own until
        it is known to be true."""
        n_context = self._n_context(sequence)
        n_wanted = pages_for(n_context + n) - len(sequence.pages)
        n_given = max(0, min(n_wanted, self.pool.n_free - n_spare))
        self._give(sequence, n_given)
        return min(n, len(sequence.pages) * PAGE_TOKENS - n_context)

    def grow(self, sequence: Sequence) -> None:
        """Gives it those; they have to be free."""
        self._give(sequence, self.n_missing(sequence))

    def note_computed(self, sequence: Sequence, n: int) -> None:
        """The next `n` tokens of a sequence are in its pages now; full ones can be shared."""
        sequence.n_computed += n
        if not sequence.is_shared or sequence.n_dropped:
            return  # what was computed behind forgotten tokens is no answer to others' tokens
        n_full = sequence.n_computed // PAGE_TOKENS
        if n_full > sequence.n_published:
            keys = sequence.page_keys(n_full)
            for i in range(sequence.n_published, n_full):
                self.pool.publish(sequence.pages[i], keys[i])
            sequence.n_published = n_full

    def leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence; what was published can be found until it has to go."""
        if sequence.pages and sequence.is_shared and not sequence.n_dropped:
            keys = self._publish_tail(sequence)
            if sequence.session_id is not None:
                tokens = sequence.tokens[: sequence.n_computed]
                self.sessions.note(sequence.session_id, tokens, keys)
        self.pool.release(sequence.pages)
        del sequence.pages[:]
        sequence.n_computed = sequence.n_published = sequence.n_dropped = 0

    def adopt(self, session_id: str, tokens: list[int], pages: list[int]) -> None:
        """Owned pages hold these tokens' keys and values: they can be found, as a session's."""
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
        """Free pages that a shift needs: for pages it would write and others read."""
        changed = sequence.pages[self._n_kept(sequence) // PAGE_TOKENS :]
        n_kept_pages = len(sequence.pages) - len(changed)
        n_after = pages_for(self._n_after(sequence)) - n_kept_pages
        return sum(self.pool.n_owners(page) > 1 for page in changed[:n_after])

    def shift(self, sequence: Sequence) -> KvShift:
        """Forgets the older half of what may go; what the ranks have to do before the next step.
        The pages that `n_for_shift` tells have to be free."""
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
        """Pages that hold the first tokens of a sequence, and the unfinished one behind them. The
        last token is always computed: its logits are what the sequence is here for."""
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
        """Lets others go on in the unfinished last page; the keys of all that was computed."""
        n_full, n_rest = divmod(sequence.n_computed, PAGE_TOKENS)
        keys = sequence.page_keys(n_full)
        if n_rest == 0:
            return keys
        before = keys[-1] if keys else b""
        tokens = sequence.tokens[n_full * PAGE_TOKENS : sequence.n_computed]
        return [*keys, self.pool.publish_tail(sequence.pages[n_full], before, tokens)]

    def _n_context(self, sequence: Sequence) -> int:
        """Tokens of a sequence that have to be in pages at once."""
        return min(len(sequence.tokens) - sequence.n_dropped, self._max_len)

    def _n_kept(self, sequence: Sequence) -> int:
        """Tokens that no shift forgets; some others there must be."""
        return max(0, min(sequence.n_keep, self._max_len - 4))

    def _n_after(self, sequence: Sequence) -> int:
        """Tokens in the pages after a shift: half of what may go has gone, at least one."""
        n_held = sequence.n_computed - sequence.n_dropped
        return n_held - max(1, (n_held - self._n_kept(sequence)) // 2)

    def _give(self, sequence: Sequence, n: int) -> None:
        pages = self.pool.allocate(n)
        assert pages is not None, "pages are counted before they are given"
        sequence.pages.extend(pages)
