"""The KV cache: pages are allocated to sequences, found again by their contents, and shifted.

What others can find in a page is never written again. A page that several sequences own is full; of
any other, the first tokens are copied to a page of the sequence that wants them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dllama.engine.kv.pages import PagePool, pages_for
from dllama.engine.kv.sequence_states import SequenceStates
from dllama.engine.kv.sessions import Sessions
from dllama.engine.kv.states import KeptState
from dllama.engine.sequence import Sequence
from dllama.kv import KvShift
from dllama.step import NO_SLOT, PAGE_TOKENS


class _Found(NamedTuple):
    """Cached keys and values of a sequence's first tokens."""

    pages: list[int]  # to be owned by the sequence too
    n_tokens: int  # in these pages, and at the beginning of the copied one
    copied: int | None  # the page after them that has to be copied
    state: KeptState | None = None  # after these tokens, where layers keep states
    n_shared: int = 0  # tokens found in pages alone


class KvCache:
    """The pool of pages as sequences use it, and the states of those of models that keep some."""

    def __init__(self, n_pages: int, max_len: int, n_slots: int = 0) -> None:
        self.pool = PagePool(n_pages)
        self.states = SequenceStates(n_slots)
        self.sessions = Sessions(self.pool)
        self._max_len = max_len
        self._copies: list[tuple[int, int]] = []  # of pages, not yet done

    def emptied(self, n_pages: int, max_len: int) -> KvCache:
        """Returns a cache of this size without contents, which knows the same sessions by name."""
        empty = KvCache(n_pages, max_len, self.states.pool.n_slots)
        self.sessions.tell(empty.sessions)
        return empty

    def admit(self, sequence: Sequence, n_spare: int) -> bool:
        """Gives a sequence pages for all its tokens, cached ones where there are any, if `n_spare`
        more stay free; else returns False and changes nothing."""
        pool, n_wanted = self.pool, pages_for(self._n_context(sequence))
        found = self._find(sequence)
        n_new = n_wanted - len(found.pages)
        if n_new + pool.n_unowned(found.pages) + n_spare > pool.n_free:
            return False
        if not self.states.admit(sequence, found.state, found.n_shared):
            return False
        pool.retain(found.pages)
        sequence.pages.extend(found.pages)
        sequence.n_computed = found.n_tokens
        sequence.n_published = found.n_tokens // PAGE_TOKENS
        if found.copied is not None:
            pool.touch(found.copied)
        self._give(sequence, n_new)
        if found.copied is not None:  # even if it was just given: its contents are there until then
            self._copies.append((found.copied, sequence.pages[sequence.n_published]))
        if not sequence.has_run:
            sequence.has_run, sequence.n_cached = True, sequence.n_computed
        return True

    def take_copies(self) -> list[tuple[int, int]]:
        """The copies of pages, from and to, that the ranks have to do before the next step, one
        after the other: an earlier one may read what a later one writes."""
        copies, self._copies = self._copies, []
        return copies

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
        """Records that the next `n` tokens of a sequence are computed, and publishes pages that are
        full, and all of a prompt as soon as it is computed."""
        n_before = sequence.n_computed
        sequence.n_computed += n
        self.states.note_computed(sequence)
        if not sequence.is_shared or sequence.n_dropped:
            return  # keys and values after dropped tokens are of use to no other sequence
        self._publish_full(sequence)
        if n_before < sequence.n_prompt <= sequence.n_computed:
            self._publish_rest(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence, and its state; what is published can be found until it
        is evicted."""
        self.states.leave(sequence)
        if sequence.pages and sequence.is_shared and not sequence.n_dropped:
            keys = self._publish_rest(sequence)
            if sequence.session_id is not None:
                tokens = sequence.tokens[: sequence.n_computed]
                self.sessions.note(sequence.session_id, tokens, keys)
        self.pool.release(sequence.pages)
        sequence.forget_pages()

    def adopt(self, session_id: str, tokens: list[int], pages: list[int], slot: int) -> None:
        """Publishes owned pages that hold these tokens' keys and values, as those of a session, and
        keeps the state after them that is in an owned slot."""
        keys: list[bytes] = []
        for i, page in enumerate(pages):
            here = tokens[i * PAGE_TOKENS : (i + 1) * PAGE_TOKENS]
            keys.append(self.pool.publish(page, keys[-1] if keys else b"", here))
        if slot != NO_SLOT:
            self.states.pool.keep(slot, keys[-1], len(tokens))
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
        self.states.check_integrity(sequences)
        owners = Counter(page for sequence in sequences for page in sequence.pages)
        assert len(owners) == self.pool.n_used, "a page is owned by nobody that runs"
        for page, n in owners.items():
            assert self.pool.n_owners(page) == n, f"page {page} has {n} owners and does not know"
        for sequence in sequences:
            assert len(set(sequence.pages)) == len(sequence.pages), "a sequence has a page twice"

    def _find(self, sequence: Sequence) -> _Found:
        """What is cached of a sequence. Its last token is never taken from the cache: its logits
        are needed. Nor is a context full of it, so that its pages are copied by a step before they
        are shifted."""
        if not sequence.is_shared:
            return _Found([], 0, None)
        n_known = min(len(sequence.tokens), self._max_len - 1) - 1
        within = self._find_pages(sequence, n_known)
        if not self.states.is_needed:
            return within
        for kept in self.states.found(sequence, within.n_tokens):
            found = self._find_pages(sequence, kept.n_tokens)
            if found.n_tokens == kept.n_tokens:
                return found._replace(state=kept, n_shared=within.n_tokens)
        return _Found([], 0, None, n_shared=within.n_tokens)

    def _find_pages(self, sequence: Sequence, n_known: int) -> _Found:
        """What is cached of a sequence's first `n_known` tokens, whatever the states."""
        pages = self.pool.find(sequence.page_keys(n_known // PAGE_TOKENS))
        begin = len(pages) * PAGE_TOKENS
        wanted = sequence.tokens[begin : min(begin + PAGE_TOKENS, n_known)]
        within = self.pool.find_within(sequence.key_before(len(pages)), wanted)
        if within is None:
            return _Found(pages, begin, None)
        if self.pool.can_be_continued(within):
            return _Found([*pages, within.page], begin + within.n, None)
        return _Found(pages, begin + within.n, within.page)

    def _publish_full(self, sequence: Sequence) -> None:
        """Publishes the full pages that are not published yet."""
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
        """Publishes the computed tokens of the sequence's page `i`; returns their key."""
        end = min((i + 1) * PAGE_TOKENS, sequence.n_computed)
        tokens = sequence.tokens[i * PAGE_TOKENS : end]
        return self.pool.publish(sequence.pages[i], sequence.key_before(i), tokens)

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
