"""What published pages hold: tokens found again by a key. Knows numbers only, no owners.

The key of a full page is a hash of its tokens and of the key before it, so that it stands for all
tokens up to its end. The unfinished page at the end of a sequence, its tail, has a key too, and is
found by the key before it and the tokens it begins with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

KEY_BYTES = 16  # of a hash: two of 10^12 pages alike by chance once in 10^14 such servers


def page_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a page: of its tokens and of the key before it, empty for the first."""
    data = before + np.array(tokens, "<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


class Tail(NamedTuple):
    """An unfinished page, and how many of its first tokens are those that were asked for."""

    page: int
    n: int


class PageIndex:
    """Pages by what they hold; a key has one page, a page one key."""

    def __init__(self) -> None:
        self._keys: dict[int, bytes] = {}
        self._pages: dict[bytes, int] = {}
        self._tails: dict[bytes, dict[int, tuple[int, ...]]] = {}  # key before -> page -> tokens
        self._before: dict[int, bytes] = {}  # of tails

    def __contains__(self, page: int) -> bool:
        return page in self._keys

    def keys(self) -> dict[int, bytes]:
        """The key of each page."""
        return dict(self._keys)

    def add(self, page: int, key: bytes) -> bool:
        """Notes what a page holds; False where that is there already, or the page is known."""
        if key in self._pages or page in self._keys:
            return False
        self._pages[key], self._keys[page] = page, key
        return True

    def add_tail(self, page: int, before: bytes, tokens: Sequence[int]) -> bytes:
        """Notes an unfinished page that follows the key `before`; its own key."""
        key = page_key(before, tokens)
        if self.add(page, key):
            self._before[page] = before
            self._tails.setdefault(before, {})[page] = tuple(tokens)
        return key

    def remove(self, page: int) -> None:
        """Forgets what a page holds."""
        del self._pages[self._keys.pop(page)]
        before = self._before.pop(page, None)
        if before is not None:
            del self._tails[before][page]
            if not self._tails[before]:
                del self._tails[before]

    def key_of(self, page: int) -> bytes | None:
        return self._keys.get(page)

    def page_of(self, key: bytes) -> int | None:
        return self._pages.get(key)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest beginning of `keys` that is there."""
        found = []
        for key in keys:
            page = self._pages.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def find_tail(self, before: bytes, tokens: Sequence[int]) -> Tail | None:
        """The tail behind `before` that has most of the first of `tokens`; None without any."""
        best = None
        for page, held in self._tails.get(before, {}).items():
            n = _n_alike(held, tokens)
            if n and (best is None or n > best.n):
                best = Tail(page, n)
        return best

    def check_integrity(self) -> None:
        """Raises AssertionError where the tables contradict each other."""
        assert {k: p for p, k in self._keys.items()} == self._pages, "keys and pages disagree"
        assert set(self._before) <= set(self._keys), "a tail is unknown"
        tails = {page: before for before, held in self._tails.items() for page in held}
        assert tails == self._before, "tails and their keys disagree"


def _n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many of the first tokens are the same."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
