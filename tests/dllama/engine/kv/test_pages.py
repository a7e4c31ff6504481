"""No page is ever owned by two who do not know of each other, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dllama.engine.kv.index import PageIndex, Tail, page_key
from dllama.engine.kv.pages import PagePool, pages_for
from dllama.step import PAGE_TOKENS

N_PAGES = 12

Path = tuple[int, ...]  # a number for the tokens of each page, from the first page on


def key_of(path: Path) -> bytes:
    key = b""
    for number in path:
        key = page_key(key, [number])
    return key


paths = st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple)  # few: they recur


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share and give back pages; a plain list of lists is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(N_PAGES)
        self.holders: list[list[int]] = []
        self.pins: list[Path] = []
        # page -> the path to it or, of a tail, its number and length; until the page is taken
        self.contents: dict[int, Path | tuple[str, int, int]] = {}

    @rule(n=st.integers(0, N_PAGES + 2))
    def allocate(self, n: int) -> None:
        free_before = self.pool.n_free
        pages = self.pool.allocate(n)
        if n > free_before:
            assert pages is None and self.pool.n_free == free_before
            return
        assert pages is not None and len(set(pages)) == n
        held = {page for holder in self.holders for page in holder}
        assert held.isdisjoint(pages)
        for page in pages:  # whatever they held is gone
            self.contents.pop(page, None)
        self.holders.append(pages)

    @rule(data=st.data(), path=paths)
    def publish(self, data: st.DataObject, path: Path) -> None:
        if any(self.holders):
            page = data.draw(st.sampled_from([p for h in self.holders for p in h]))
            if page not in self.contents and path not in self.contents.values():
                self.contents[page] = path
            self.pool.publish(page, key_of(path))

    @rule(path=paths)
    def find_and_share(self, path: Path) -> None:
        steps = [path[: i + 1] for i in range(len(path))]
        pages = self.pool.find([key_of(step) for step in steps])
        assert [self.contents[page] for page in pages] == steps[: len(pages)]
        missing = steps[len(pages) : len(pages) + 1]
        assert not set(missing) & set(self.contents.values())
        if pages and len(set(pages)) == len(pages):
            self.pool.retain(pages)
            self.holders.append(pages)

    @rule(data=st.data(), number=st.integers(0, 2), length=st.integers(1, 3))
    def leave_a_tail(self, data: st.DataObject, number: int, length: int) -> None:
        """The last page of a holder is left unfinished; others may go on in it."""
        mine = [h for h in self.holders if h and self.pool.n_owners(h[-1]) == 1]
        if mine:
            holder = data.draw(st.sampled_from(mine))
            page, tail = holder[-1], ("tail", number, length)
            self.pool.publish_tail(page, b"before", [number] * length)
            if page not in self.contents and tail not in self.contents.values():
                self.contents[page] = tail
            self.holders.remove(holder)
            self.pool.release(holder)

    @rule(number=st.integers(0, 2), length=st.integers(1, 4))
    def go_on_in_a_tail(self, number: int, length: int) -> None:
        tail = self.pool.find_tail(b"before", [number] * length)
        if tail is not None:
            assert 1 <= tail.n <= length
            held = {page for holder in self.holders for page in holder}
            assert tail.page not in held
            del self.contents[tail.page]
            self.pool.take(tail.page)
            self.holders.append([tail.page])

    @rule(path=paths)
    def pin(self, path: Path) -> None:
        self.pool.pin([key_of(path)])
        self.pins.append(path)

    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        if self.pins:
            path = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
            self.pool.unpin([key_of(path)])

    @rule(path=paths)
    def drop(self, path: Path) -> None:
        self.pool.drop([key_of(path)])
        page = next((p for p, held in self.contents.items() if held == path), None)
        if page is not None and not self.pool.find([key_of(path)]):
            assert path not in self.pins
            del self.contents[page]

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        if self.holders:
            pages = data.draw(st.sampled_from(self.holders))
            self.pool.retain(pages)
            self.holders.append(list(pages))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.holders:
            index = data.draw(st.integers(0, len(self.holders) - 1))
            self.pool.release(self.holders.pop(index))

    @invariant()
    def used_and_free_are_all(self) -> None:
        held = {page for holder in self.holders for page in holder}
        assert self.pool.n_used == len(held)
        assert self.pool.n_used + self.pool.n_free == N_PAGES
        self.pool.check_integrity()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30)


def test_a_free_page_cannot_be_released_or_shared() -> None:
    pool = PagePool(2)
    pages = pool.allocate(1)
    assert pages is not None
    pool.release(pages)
    with pytest.raises(AssertionError, match="free already"):
        pool.release(pages)
    with pytest.raises(AssertionError, match="cannot be shared"):
        pool.retain(pages)


def test_integrity_check_sees_a_page_that_is_free_twice() -> None:
    class Damaged(PagePool):
        def __init__(self) -> None:
            super().__init__(2)
            self._free.append(0)

    with pytest.raises(AssertionError, match="twice"):
        Damaged().check_integrity()


def test_the_page_that_was_released_longest_ago_is_evicted_first() -> None:
    pool = PagePool(5)
    keys = [page_key(b"", [number]) for number in range(3)]
    held = [pool.allocate(1) for _ in keys]
    for pages, key in zip(held, keys, strict=True):
        assert pages is not None
        pool.publish(pages[0], key)
        pool.release(pages)
    assert pool.n_kept == 3 and pool.allocate(3) is not None  # one more than is free
    assert [bool(pool.find([key])) for key in keys] == [False, True, True]
    assert pool.allocate(1) is not None
    assert [bool(pool.find([key])) for key in keys] == [False, False, True]


def test_contents_that_are_listed_already_stay_where_they_are() -> None:
    pool, key = PagePool(3), page_key(b"", [1])
    pages = pool.allocate(2)
    assert pages is not None
    for page in pages:
        pool.publish(page, key)
    assert pool.find([key]) == pages[:1]
    pool.release(pages)
    assert pool.n_kept == 1 and pool.find([key]) == pages[:1]
    pool.check_integrity()


def test_the_last_page_of_a_sequence_is_evicted_before_its_first() -> None:
    pool = PagePool(3)
    keys = [key_of((1,)), key_of((1, 1)), key_of((1, 1, 1))]
    pages = pool.allocate(3)
    assert pages is not None
    for page, key in zip(pages, keys, strict=True):
        pool.publish(page, key)
    pool.release(pages)
    for n_left in (2, 1, 0):
        assert pool.allocate(1) is not None
        assert pool.find(keys) == pages[:n_left]


def test_of_several_tails_the_one_that_matches_most_is_found() -> None:
    index = PageIndex()
    for page, tokens in enumerate(([1, 9], [1, 2, 3], [1, 2, 8])):
        index.add_tail(page, b"", tokens)
    assert index.find_tail(b"", [1, 2, 3, 4]) == Tail(1, 3)
    assert index.find_tail(b"", [7]) is None and index.find_tail(b"another", [1]) is None


def test_a_tail_is_found_once_its_owner_has_left() -> None:
    pool = PagePool(2)
    pages = pool.allocate(1)
    assert pages is not None
    pool.publish_tail(pages[0], b"", [1, 2])
    assert pool.find_tail(b"", [1, 2]) is None
    pool.release(pages)
    assert pool.find_tail(b"", [1, 2]) == Tail(pages[0], 2)
    pool.take(pages[0])
    assert pool.find_tail(b"", [1, 2]) is None


def test_pages_for_rounds_up() -> None:
    assert [pages_for(n) for n in (0, 1, PAGE_TOKENS, PAGE_TOKENS + 1)] == [0, 1, 1, 2]
