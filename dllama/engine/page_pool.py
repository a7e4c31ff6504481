"""Who owns which KV page, and what full pages hold. Knows numbers only; the pages themselves are in
the ranks' memory.

A page has a count of owners, so that sequences with a common beginning share its pages. A full page
is published under a key that stands for all tokens up to its end; without owners it is kept, and
found again by that key, until its memory is needed: the one that was left longest ago goes first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from dllama.step import PAGE_TOKENS

KEY_BYTES = 16  # of a hash: two of 10^12 pages alike by chance once in 10^14 years of servers


def pages_for(n_tokens: int) -> int:
    """Pages that hold the keys and values of `n_tokens` tokens."""
    return -(-n_tokens // PAGE_TOKENS)


def page_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a full page: of its tokens and of the key before it, empty for the first."""
    data = before + np.array(tokens, "<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


class PagePool:
    """Pages 0 .. n_pages - 1, each free, kept for its contents, or owned by one or more holders."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self._owners = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))  # a stack: a warm page is used again first
        self._keys: dict[int, bytes] = {}
        self._pages: dict[bytes, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # without owners, left longest ago first

    @property
    def n_free(self) -> int:
        """Pages that can be had: what is kept without owners gives way."""
        return len(self._free) + len(self._kept)

    @property
    def n_used(self) -> int:
        return self.n_pages - self.n_free

    def allocate(self, n: int) -> list[int] | None:
        """n free pages, each with one owner from now on; None, and no change, without so many."""
        if n > self.n_free:
            return None
        pages = [self._free.pop() if self._free else self._forget_oldest() for _ in range(n)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest beginning of `keys` that is there; `retain` those to use."""
        found = []
        for key in keys:
            page = self._pages.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def n_kept(self, pages: Iterable[int]) -> int:
        """How many of these have no owner now."""
        return sum(page in self._kept for page in pages)

    def publish(self, page: int, key: bytes) -> None:
        """Lets others find an owned page, now that it is full. Contents that are there already
        are not listed twice."""
        assert self._owners[page] > 0, f"page {page} is nobody's and holds nothing"
        if key not in self._pages and page not in self._keys:
            self._pages[key], self._keys[page] = page, key

    def retain(self, pages: Iterable[int]) -> None:
        """Adds an owner to pages that are in use or kept."""
        for page in pages:
            assert self._owners[page] > 0 or page in self._kept, (
                f"page {page} is free and cannot be shared"
            )
            self._kept.pop(page, None)
            self._owners[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Takes an owner off each page; one without owners is kept if it was published, else free.

        The last pages of a sequence are left first: its beginning is what others share.
        """
        for page in reversed(pages):
            assert self._owners[page] > 0, f"page {page} is free already"
            self._owners[page] -= 1
            if self._owners[page] == 0:
                if page in self._keys:
                    self._kept[page] = None
                else:
                    self._free.append(page)

    def n_owners(self, page: int) -> int:
        return self._owners[page]

    def check_integrity(self) -> None:
        """Raises AssertionError unless every page is either free, once, kept, or owned."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is twice in the list of free pages"
        for page, owners in enumerate(self._owners):
            assert owners >= 0, f"page {page} has {owners} owners"
            places = (page in free) + (page in self._kept) + (owners > 0)
            assert places == 1, f"page {page} has {owners} owners and is in {places} places"
        assert not free & set(self._keys), "a free page can be found"
        assert set(self._kept) <= set(self._keys), "a page is kept that nobody can find"
        assert {k: p for p, k in self._keys.items()} == self._pages, "keys and pages disagree"

    def _forget_oldest(self) -> int:
        page, _ = self._kept.popitem(last=False)
        del self._pages[self._keys.pop(page)]
        return page
