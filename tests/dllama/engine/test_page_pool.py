"""No page is ever owned by two who do not know of each other, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dllama.engine.page_index import page_key
from dllama.engine.page_pool import PagePool, pages_for
from dllama.step import PAGE_TOKENS

N_PAGES = 12


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share and give back pages; a plain list of lists is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(N_PAGES)
        self.holders: list[list[int]] = []
        self.pins: list[bytes] = []
        self.contents: dict[int, bytes] = {}  # page -> key, as long as nobody took the page

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

    @rule(data=st.data(), number=st.integers(0, 5))
    def publish(self, data: st.DataObject, number: int) -> None:
        if any(self.holders):
            page = data.draw(st.sampled_from([p for h in self.holders for p in h]))
            key = page_key(b"", [number])
            if page not in self.contents and key not in self.contents.values():
                self.contents[page] = key
            self.pool.publish(page, key)

    @rule(numbers=st.lists(st.integers(0, 5), max_size=3))
    def find_and_share(self, numbers: list[int]) -> None:
        keys = [page_key(b"", [n]) for n in numbers]
        pages = self.pool.find(keys)
        assert [self.contents[page] for page in pages] == keys[: len(pages)]
        missing = keys[len(pages) : len(pages) + 1]
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
            page, tokens = holder[-1], [number] * length
            key = self.pool.publish_tail(page, b"before", tokens)
            if page not in self.contents and key not in self.contents.values():
                self.contents[page] = key
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

    @rule(number=st.integers(0, 5))
    def pin(self, number: int) -> None:
        key = page_key(b"", [number])
        self.pool.pin([key])
        self.pins.append(key)

    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        if self.pins:
            self.pool.unpin([self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))])

    @rule(number=st.integers(0, 5))
    def drop(self, number: int) -> None:
        key = page_key(b"", [number])
        self.pool.drop([key])
        page = next((p for p, k in self.contents.items() if k == key), None)
        if page is not None and not self.pool.find([key]):
            assert key not in self.pins
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


def test_pages_for_rounds_up() -> None:
    assert [pages_for(n) for n in (0, 1, PAGE_TOKENS, PAGE_TOKENS + 1)] == [0, 1, 1, 2]
