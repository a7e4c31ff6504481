"""The owners of KV pages. Knows numbers only; the pages themselves are in the ranks' memory.

A page has a count of owners, so that sequences with a common beginning share its pages. A published
page without owners is kept and can be found again until its memory is needed: eviction is least
recently released first, pinned pages after all others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from dllama.engine.kv.index import Beginning, PageIndex
from dllama.step import PAGE_TOKENS


def pages_for(n_tokens: int) -> int:
    """Pages that hold the keys and values of `n_tokens` tokens."""
    return -(-n_tokens // PAGE_TOKENS)


class PagePool:
    """Pages 0 .. n_pages - 1, each free, kept for its contents, or owned by one or more holders."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self._owners = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))  # a stack: a warm page is reused first
        self._index = PageIndex()
        # Pages without owners, least recently released first.
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._kept_pinned: OrderedDict[int, None] = OrderedDict()
        self._pins: Counter[bytes] = Counter()

    @property
    def n_free(self) -> int:
        """Pages that can be allocated: kept pages without owners are evicted."""
        return len(self._free) + len(self._kept) + len(self._kept_pinned)

    @property
    def n_used(self) -> int:
        return self.n_pages - self.n_free

    @property
    def n_kept(self) -> int:
        """Pages without owners whose contents can be found."""
        return len(self._kept) + len(self._kept_pinned)

    def allocate(self, n: int) -> list[int] | None:
        """n free pages, each with one owner; None, and no change, where fewer are free."""
        if n > self.n_free:
            return None
        pages = [self._free.pop() if self._free else self._oldest_kept() for _ in range(n)]
        for page in pages:
            self._owners[page] = 1
        return pages

    # ---- owners
    def n_owners(self, page: int) -> int:
        return self._owners[page]

    def n_unowned(self, pages: Iterable[int]) -> int:
        """The number of these pages that have no owner."""
        return sum(self._owners[page] == 0 for page in pages)

    def retain(self, pages: Iterable[int]) -> None:
        """Adds an owner to pages that are owned or kept."""
        for page in pages:
            assert self._owners[page] > 0 or page in self._index, (
                f"page {page} is free and cannot be shared"
            )
            self._kept.pop(page, None)
            self._kept_pinned.pop(page, None)
            self._owners[page] += 1

    def release(self, pages: Sequence[int], *, is_first: bool = False) -> None:
        """Removes an owner from each page; one without owners is kept if published, else free. With
        `is_first` it is evicted before all that are kept.

        The last pages of a sequence are released first, and evicted first: others share its
        beginning.
        """
        for page in reversed(pages):
            assert self._owners[page] > 0, f"page {page} is free already"
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._keep(page, is_first)

    # ---- contents
    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest beginning of `keys` that is cached; `retain` those to use."""
        return self._index.find(keys)

    def page_of(self, key: bytes) -> int | None:
        """The page of this key; None where it is not cached."""
        return self._index.page_of(key)

    def find_within(self, before: bytes, tokens: Sequence[int]) -> Beginning | None:
        """The page after the key `before` that begins with most of the first of `tokens`: `retain`
        it to go on in it, if it `can_be_continued`; else copy it, and `touch` it."""
        return self._index.find_within(before, tokens)

    def can_be_continued(self, found: Beginning) -> bool:
        """Whether tokens may be written after those of a page: nobody else does, and nothing that
        others can find there is overwritten."""
        return found.is_whole and self._owners[found.page] == 0

    def publish(self, page: int, before: bytes, tokens: Sequence[int]) -> bytes:
        """Lets others find the tokens that an owned page holds so far, after those of the key
        `before`; returns the key of all. Its owner may write behind them. Contents that are listed
        already are not listed twice."""
        assert self._owners[page] > 0, f"page {page} is nobody's and holds nothing"
        return self._index.add(page, before, tokens)

    def touch(self, page: int) -> None:
        """Counts a kept page as one that was released just now: its contents were of use."""
        for kept in (self._kept, self._kept_pinned):
            if page in kept:
                kept.move_to_end(page)

    def unpublish(self, page: int) -> None:
        """Forgets the contents of an owned page, which is going to be overwritten."""
        assert self._owners[page] == 1, f"page {page} has {self._owners[page]} owners"
        if page in self._index:
            self._index.remove(page)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Evicts the pages of these keys that have neither owner nor pin."""
        for key in keys:
            page = self._index.page_of(key)
            if page is not None and page in self._kept:
                del self._kept[page]
                self._index.remove(page)
                self._free.append(page)

    def published(self) -> dict[int, bytes]:
        """The pages that can be found, with their keys."""
        return self._index.keys()

    # ---- pins
    @property
    def n_pins(self) -> int:
        """Pinned keys, cached or not."""
        return len(self._pins)

    def pin(self, keys: Iterable[bytes]) -> None:
        """Pins these keys, cached or not: their pages are evicted after all that have no pin."""
        for key in keys:
            self._pins[key] += 1
            self._move(key, self._kept, self._kept_pinned)

    def unpin(self, keys: Iterable[bytes]) -> None:
        """Removes a pin from each key."""
        for key in keys:
            assert self._pins[key] > 0, "a pin is taken back that was not set"
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]
                self._move(key, self._kept_pinned, self._kept)

    def check_integrity(self) -> None:
        """Raises AssertionError unless every page is either free, once, kept, or owned."""
        self._index.check_integrity()
        free = set(self._free)
        assert len(free) == len(self._free), "a page is twice in the list of free pages"
        for page, owners in enumerate(self._owners):
            assert owners >= 0, f"page {page} has {owners} owners"
            kept = (page in self._kept) + (page in self._kept_pinned)
            places = (page in free) + kept + (owners > 0)
            assert places == 1, f"page {page} has {owners} owners and is in {places} places"
            assert not (page in free and page in self._index), "a free page can be found"
            assert not kept or page in self._index, "a page is kept that nobody can find"
            is_pinned = self._index.key_of(page) in self._pins
            assert not kept or is_pinned == (page in self._kept_pinned), f"pin of page {page}"

    def _keep(self, page: int, is_first: bool) -> None:
        key = self._index.key_of(page)
        if key is None:
            self._free.append(page)
            return
        kept = self._kept_pinned if key in self._pins else self._kept
        kept[page] = None
        if is_first:
            kept.move_to_end(page, last=False)

    def _move(
        self, key: bytes, source: OrderedDict[int, None], target: OrderedDict[int, None]
    ) -> None:
        page = self._index.page_of(key)
        if page is not None and page in source:
            del source[page]
            target[page] = None

    def _oldest_kept(self) -> int:
        page, _ = (self._kept or self._kept_pinned).popitem(last=False)
        self._index.remove(page)
        return page
