"""The contents of published pages, found again by their tokens. Knows numbers only, no owners.

The key of a page is a hash of its tokens and of the key before it, so that it stands for all tokens
up to its end. Whole pages are found by their keys. Within a page, the first tokens are found among
all pages that follow the same key: these are sorted by their tokens, so that the one with the
longest common beginning is a neighbour of the tokens that are wanted.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dllama.step import PAGE_TOKENS

KEY_BYTES = 16  # of a hash: of 10^12 pages two collide in one of 10^14 servers
TOKEN_BYTES = 4


def packed(tokens: Sequence[int]) -> bytes:
    """The tokens as bytes that are sorted as the tokens are."""
    return np.array(tokens, ">i4").tobytes()


def page_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a page: a hash of its tokens and of the key before it (empty for the first)."""
    return _hash(before, packed(tokens))


def key_of(tokens: Sequence[int]) -> bytes:
    """The key of all of these tokens, which lie in pages from their first on."""
    key = b""
    for begin in range(0, len(tokens), PAGE_TOKENS):
        key = page_key(key, tokens[begin : begin + PAGE_TOKENS])
    return key


class Beginning(NamedTuple):
    """A page whose first `n` tokens are those wanted, and whether it holds no others."""

    page: int
    n: int
    is_whole: bool


class _Entry(NamedTuple):
    key: bytes
    before: bytes
    contents: bytes  # packed tokens


class PageIndex:
    """Pages by their contents; a key has one page, a page one key."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._pages: dict[bytes, int] = {}
        self._after: dict[bytes, list[tuple[bytes, int]]] = {}  # key before -> contents, page

    def __contains__(self, page: int) -> bool:
        return page in self._entries

    def keys(self) -> dict[int, bytes]:
        """The key of each page."""
        return {page: entry.key for page, entry in self._entries.items()}

    def add(self, page: int, before: bytes, tokens: Sequence[int]) -> bytes:
        """Records the contents of a page after the key `before`, in place of what was recorded of
        it, unless another page has them; returns their key."""
        contents = packed(tokens)
        key = _hash(before, contents)
        if self._pages.get(key) == page:
            return key
        if page in self._entries:
            self.remove(page)
        if key not in self._pages:
            self._entries[page], self._pages[key] = _Entry(key, before, contents), page
            insort(self._after.setdefault(before, []), (contents, page))
        return key

    def remove(self, page: int) -> None:
        """Forgets the contents of a page."""
        key, before, contents = self._entries.pop(page)
        del self._pages[key]
        siblings = self._after[before]
        del siblings[bisect_left(siblings, (contents, page))]
        if not siblings:
            del self._after[before]

    def key_of(self, page: int) -> bytes | None:
        entry = self._entries.get(page)
        return None if entry is None else entry.key

    def page_of(self, key: bytes) -> int | None:
        return self._pages.get(key)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest beginning of `keys` that is cached."""
        found = []
        for key in keys:
            page = self._pages.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def find_within(self, before: bytes, tokens: Sequence[int]) -> Beginning | None:
        """The page after the key `before` that begins with most of the first of `tokens`; None
        without any."""
        siblings, wanted = self._after.get(before, []), packed(tokens)
        at = bisect_left(siblings, (wanted,))
        beginnings = []
        for contents, page in siblings[max(0, at - 1) : at + 1]:
            n = _n_alike(contents, wanted)
            beginnings.append(Beginning(page, n, n * TOKEN_BYTES == len(contents)))
        best = max(beginnings, key=lambda found: (found.n, found.is_whole), default=None)
        return best if best is not None and best.n else None

    def check_integrity(self) -> None:
        """Raises AssertionError where the tables contradict each other."""
        pages = {entry.key: page for page, entry in self._entries.items()}
        assert pages == self._pages, "keys and pages disagree"
        listed = {(e.before, e.contents, page) for page, e in self._entries.items()}
        sorted_ones = [(before, *held) for before, row in self._after.items() for held in row]
        assert set(sorted_ones) == listed and len(sorted_ones) == len(listed), "pages are missing"
        assert all(row == sorted(row) for row in self._after.values()), "pages are out of order"


def _hash(before: bytes, contents: bytes) -> bytes:
    return hashlib.blake2b(before + contents, digest_size=KEY_BYTES).digest()


def _n_alike(a: bytes, b: bytes) -> int:
    """The number of tokens of the common beginning."""
    n = min(len(a), len(b))
    for i in range(0, n, TOKEN_BYTES):
        if a[i : i + TOKEN_BYTES] != b[i : i + TOKEN_BYTES]:
            return i // TOKEN_BYTES
    return n // TOKEN_BYTES
