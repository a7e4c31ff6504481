"""Who owns which KV page. Knows numbers only; the pages themselves are in the ranks' memory.

A page has a count of owners, so that sequences with a common beginning can share its pages.
"""

from __future__ import annotations

from collections.abc import Iterable

from dllama.step import PAGE_TOKENS


def pages_for(n_tokens: int) -> int:
    """Pages that hold the keys and values of `n_tokens` tokens."""
    return -(-n_tokens // PAGE_TOKENS)


class PagePool:
    """Pages 0 .. n_pages - 1, each free or owned by one or more holders."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self._owners = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))  # a stack: a warm page is used again first

    @property
    def n_free(self) -> int:
        return len(self._free)

    @property
    def n_used(self) -> int:
        return self.n_pages - len(self._free)

    def allocate(self, n: int) -> list[int] | None:
        """n free pages, each with one owner from now on; None, and no change, without so many."""
        if n > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(n)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def retain(self, pages: Iterable[int]) -> None:
        """Adds an owner to pages that are in use."""
        for page in pages:
            assert self._owners[page] > 0, f"page {page} is free and cannot be shared"
            self._owners[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Takes an owner off each page; a page without owners is free again."""
        for page in pages:
            assert self._owners[page] > 0, f"page {page} is free already"
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._free.append(page)

    def check_integrity(self) -> None:
        """Raises AssertionError unless every page is either free, once, or owned."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is twice in the list of free pages"
        for page, owners in enumerate(self._owners):
            assert owners >= 0, f"page {page} has {owners} owners"
            assert (owners == 0) == (page in free), (
                f"page {page} has {owners} owners and is {'' if page in free else 'not '}free"
            )
