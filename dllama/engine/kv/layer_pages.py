"""The pages of sequences in layers of one kind: those that see all earlier tokens, or those that
see a window of them and give back the pages before it.

What others can find in a page is never written again. A page that several sequences own is full; of
any other, the first tokens are copied to a page of the sequence that wants them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple, Protocol

from dllama.engine.kv.pages import PagePool, pages_for
from dllama.engine.sequence import Sequence
from dllama.step import PAGE_TOKENS
from dllama.windows import first_seen, window_span

GONE = -1  # the place of a page that no later row of its sequence sees
NEAR = 1  # pages before a window that are kept with it: a prompt may part a little earlier


class History(Protocol):
    """Tokens, and the keys of the pages that hold them."""

    @property
    def tokens(self) -> list[int]: ...

    def page_keys(self, n: int) -> list[bytes]: ...

    def key_before(self, page: int) -> bytes: ...


class Found(NamedTuple):
    """Cached keys and values of a history's first `n_tokens`."""

    n_tokens: int
    pages: list[int]  # GONE where no later row sees them
    copied: int | None = None  # the page after them that begins with the last of these tokens

    @property
    def to_read(self) -> list[int]:
        """The pages that hold those of them which later rows see."""
        last = [] if self.copied is None else [self.copied]
        return [page for page in self.pages if page != GONE] + last


class Move(NamedTuple):
    """The drop of tokens from a full context: `n_drop` after the first `n_keep`."""

    n_keep: int
    n_drop: int
    n_after: int  # tokens that remain


class LayerPages:
    """The pool of pages of one kind of layers, as sequences use it. Positions are those of tokens
    in the context, `kept` are pages that a sequence needs whatever its window is."""

    def __init__(self, n_pages: int, window: int = 0) -> None:
        """`window` is the number of tokens that a row sees, its own among them; 0 for all."""
        self.pool, self.window = PagePool(n_pages), window
        self._copies: list[tuple[int, int]] = []  # not yet done

    def of(self, sequence: Sequence) -> array[int]:
        """Returns the pages of a sequence, by their places in its context."""
        return sequence.window_pages if self.window else sequence.pages

    def first_seen(self, position: int) -> int:
        """Returns the first page that a row at a position sees."""
        return first_seen(position, self.window)

    # ---- what is found
    def longest(self, history: History, n_known: int, kept: range = range(0)) -> int:
        """Returns the most tokens, `n_known` at most, after which a row finds all that it sees."""
        n_pages = n_known // PAGE_TOKENS
        if not self.window:
            end = len(self.pool.find(history.page_keys(n_pages)))
            return self._up_to(history, end, n_known)
        is_held = [self.pool.page_of(key) is not None for key in history.page_keys(n_pages)]
        n_held = [0, *accumulate(is_held)]

        def holds(first: int, end: int) -> bool:
            return n_held[end] - n_held[min(first, end)] == max(0, end - first)

        for end in range(n_pages, -1, -1):
            if not holds(kept.start, min(kept.stop, end)):
                continue
            if not holds(self.first_seen((end + 1) * PAGE_TOKENS - 1), end):
                continue
            n = self._up_to(history, end, n_known)
            if holds(self.first_seen(n), end):
                return n
        return 0

    def _up_to(self, history: History, end: int, n_known: int) -> int:
        """Returns the tokens of the first `end` pages and those found at the beginning of the page
        after them."""
        begin = end * PAGE_TOKENS
        wanted = history.tokens[begin : min(begin + PAGE_TOKENS, n_known)]
        within = self.pool.find_within(history.key_before(end), wanted)
        return begin + (0 if within is None else within.n)

    def found(self, history: History, n: int, kept: range = range(0)) -> Found:
        """Returns the pages of the first `n` tokens, which `longest` has found."""
        n_pages, n_rest = divmod(n, PAGE_TOKENS)
        first, pages = self.first_seen(n), []
        for i, key in enumerate(history.page_keys(n_pages)):
            page = self.pool.page_of(key) if i >= first or i in kept else GONE
            assert page is not None, "what was found is there"
            pages.append(page)
        if not n_rest:
            return Found(n, pages)
        wanted = history.tokens[n - n_rest : n]
        within = self.pool.find_within(history.key_before(n_pages), wanted)
        assert within is not None and within.n == n_rest, "what was found is there"
        if self.pool.can_be_continued(within):
            return Found(n, [*pages, within.page])
        return Found(n, pages, within.page)

    # ---- pages for more tokens
    def n_new(self, found: Found, n_context: int) -> int:
        """Returns the pages that a sequence of so many tokens gets beside those that were found:
        all that it needs, or as many as a window needs at a time."""
        end = pages_for(n_context)
        if self.window:
            end = min(end, self.first_seen(found.n_tokens) + window_span(self.window))
        return end - len(found.pages)

    def can_admit(self, found: Found, n_context: int, n_spare: int) -> bool:
        """Returns whether there are the pages of `admit`, and `n_spare` more stay free."""
        n_unowned = self.pool.n_unowned(page for page in found.pages if page != GONE)
        return self.n_new(found, n_context) + n_unowned + n_spare <= self.pool.n_free

    def admit(self, sequence: Sequence, found: Found, n_context: int) -> None:
        """Gives a sequence of so many tokens the pages that were found, and new ones."""
        self.pool.retain(page for page in found.pages if page != GONE)
        pages = self.of(sequence)
        pages.extend(found.pages)
        if found.copied is not None:
            self.pool.touch(found.copied)
        self._give(sequence, self.n_new(found, n_context))
        if found.copied is not None:  # even if it was just given: its contents are there until then
            self._copies.append((found.copied, pages[len(found.pages)]))

    def n_missing(self, sequence: Sequence, n_context: int) -> int:
        """Returns the pages that a running sequence lacks for its first `n_context` tokens."""
        return max(0, pages_for(n_context) - len(self.of(sequence)))

    def reserve(self, sequence: Sequence, n_context: int, n_spare: int) -> int:
        """Gives a sequence pages for up to `n_context` tokens, as long as more than `n_spare` are
        free; returns the number of tokens that have room."""
        n_given = min(self.n_missing(sequence, n_context), self.pool.n_free - n_spare)
        self._give(sequence, max(0, n_given))
        return len(self.of(sequence)) * PAGE_TOKENS

    def take_copies(self) -> list[tuple[int, int]]:
        """Returns the copies of pages, from and to, that are to be done before the next step, one
        after the other: an earlier one may read what a later one writes."""
        copies, self._copies = self._copies, []
        return copies

    # ---- what is computed
    def publish(self, sequence: Sequence, i: int) -> bytes:
        """Publishes the computed tokens of the sequence's page `i`; returns their key."""
        end = min((i + 1) * PAGE_TOKENS, sequence.n_computed)
        tokens = sequence.tokens[i * PAGE_TOKENS : end]
        return self.pool.publish(self.of(sequence)[i], sequence.key_before(i), tokens)

    def leave_behind(
        self, sequence: Sequence, position: int, kept: range, goals: Iterable[int]
    ) -> None:
        """Takes the pages from a sequence that its rows from a position on do not see. Those that a
        row at one of the `goals` sees are evicted later than the others."""
        pages, i = self.of(sequence), self.first_seen(position) - 1
        near = [range(self.first_seen(goal) - NEAR, pages_for(goal)) for goal in goals]
        while i >= 0 and (i in kept or pages[i] != GONE):
            if i not in kept:
                self.pool.release([pages[i]], is_first=not any(i in pages for pages in near))
                pages[i] = GONE
            i -= 1

    def leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence."""
        self.pool.release([page for page in self.of(sequence) if page != GONE])

    # ---- a full context
    def n_for_shift(self, sequence: Sequence, move: Move) -> int:
        """Returns the free pages that a shift needs."""
        return self._after(sequence, move).count(None)

    def shift(self, sequence: Sequence, move: Move) -> tuple[list[int], list[int]]:
        """Gives a sequence the pages that it has once tokens are dropped; returns those before and
        those after, by their places. The pages of `n_for_shift` have to be free."""
        pages = self.of(sequence)
        before = list(pages)
        fresh = self.pool.allocate(self.n_for_shift(sequence, move))
        assert fresh is not None, "pages are counted before they are taken"
        after = [fresh.pop() if page is None else page for page in self._after(sequence, move)]
        owned = set(after)
        for page in after[move.n_keep // PAGE_TOKENS :]:
            if page != GONE:
                self.pool.unpublish(page)
        self.pool.release([page for page in before if page != GONE and page not in owned])
        del pages[:]
        pages.extend(after)
        return before, after

    def _after(self, sequence: Sequence, move: Move) -> list[int | None]:
        """Returns the pages of a sequence once tokens are dropped: GONE where no later row sees
        them, None for a new page in place of one that others read."""
        pages, (n_keep, n_drop, n_after) = self.of(sequence), move
        offset = n_drop // PAGE_TOKENS if self.window else 0  # at the same place it may be gone
        n_whole, first = n_keep // PAGE_TOKENS, self.first_seen(n_after)
        after: list[int | None] = []
        for i in range(pages_for(n_after)):
            has_kept = i == n_whole and n_keep % PAGE_TOKENS > 0 and pages[i] != GONE
            page = pages[i if i < n_whole or has_kept else i + offset]
            if i < first:
                after.append(GONE)
            elif i < n_whole or (page != GONE and self.pool.n_owners(page) == 1):
                after.append(page)
            else:
                after.append(None)
        return after

    def _give(self, sequence: Sequence, n: int) -> None:
        pages = self.pool.allocate(n)
        assert pages is not None, "pages are counted before they are given"
        self.of(sequence).extend(pages)
