"""No page is ever owned by two who do not know of each other, and none is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dllama.engine.kv.index import Beginning, PageIndex, page_key
from dllama.engine.kv.pages import PagePool, pages_for
from dllama.step import PAGE_TOKENS

N_PAGES = 12

Path = tuple[int, ...]  # a number for the tokens of each page, from the first page on


def key_of(path: Path) -> bytes:
    key = b""
    for number in path:
        key = page_key(key, [number])
    return key


def list_path(pool: PagePool, page: int, path: Path) -> None:
    pool.publish(page, key_of(path[:-1]), path[-1:])


def n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


paths = st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple)  # few: they recur
beginnings = st.lists(st.integers(5, 7), min_size=1, max_size=4).map(tuple)


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share and give back pages; a plain list of lists is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(N_PAGES)
        self.holders: list[list[int]] = []
        self.pins: list[Path] = []
        self.contents: dict[int, Path] = {}  # of a page: its tokens, after those of its path

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

    def _publish(self, page: int, before: Path, tokens: Path) -> None:
        listed = (*before, *tokens)
        if self.contents.get(page) != listed:
            self.contents.pop(page, None)
            if listed not in self.contents.values():
                self.contents[page] = listed
        self.pool.publish(page, key_of(before), tokens)

    @rule(data=st.data(), path=paths)
    def publish(self, data: st.DataObject, path: Path) -> None:
        if any(self.holders):
            page = data.draw(st.sampled_from([p for h in self.holders for p in h]))
            self._publish(page, path[:-1], path[-1:])

    @rule(data=st.data(), tokens=beginnings)
    def publish_some_tokens(self, data: st.DataObject, tokens: Path) -> None:
        """A page of several tokens: whoever owns it may add more to it later."""
        if any(self.holders):
            page = data.draw(st.sampled_from([p for h in self.holders for p in h]))
            self._publish(page, (), tokens)

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

    @rule(tokens=beginnings)
    def go_on_after_a_beginning(self, tokens: Path) -> None:
        found = self.pool.find_within(b"", tokens)
        alike = {
            page: n_alike(held, tokens)
            for page, held in self.contents.items()
            if len(held) == 1 or held[0] >= 5
        }
        assert (found.n if found else 0) == max(alike.values(), default=0)
        if found is None:
            return
        assert alike[found.page] == found.n
        assert found.is_whole == (found.n == len(self.contents[found.page]))
        if self.pool.can_be_continued(found):
            assert not any(found.page in holder for holder in self.holders)
            self.pool.retain([found.page])
            self.holders.append([found.page])
        else:
            self.pool.touch(found.page)

    @rule(data=st.data())
    def overwrite(self, data: st.DataObject) -> None:
        mine = [p for h in self.holders for p in h if self.pool.n_owners(p) == 1]
        if mine:
            page = data.draw(st.sampled_from(mine))
            self.pool.unpublish(page)
            self.contents.pop(page, None)

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
        pool.publish(pages[0], b"", [keys.index(key)])
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
        assert pool.publish(page, b"", [1]) == key
    assert pool.find([key]) == pages[:1]
    pool.release(pages)
    assert pool.n_kept == 1 and pool.find([key]) == pages[:1]
    pool.check_integrity()


def test_the_last_page_of_a_sequence_is_evicted_before_its_first() -> None:
    pool = PagePool(3)
    keys = [key_of((1,)), key_of((1, 1)), key_of((1, 1, 1))]
    pages = pool.allocate(3)
    assert pages is not None
    for i, page in enumerate(pages):
        list_path(pool, page, (1,) * (i + 1))
    pool.release(pages)
    for n_left in (2, 1, 0):
        assert pool.allocate(1) is not None
        assert pool.find(keys) == pages[:n_left]


def test_of_several_pages_the_one_that_begins_with_most_is_found() -> None:
    index = PageIndex()
    for page, tokens in enumerate(([1, 9], [1, 2, 3], [1, 2, 8])):
        index.add(page, b"", tokens)
    assert index.find_within(b"", [1, 2, 3, 4]) == Beginning(1, 3, is_whole=True)
    assert index.find_within(b"", [1, 2, 7]) == Beginning(1, 2, is_whole=False)
    assert index.find_within(b"", [7]) is None and index.find_within(b"another", [1]) is None


@given(
    held=st.lists(st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), min_size=1, max_size=6)),
    wanted=st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), max_size=6),
    n_removed=st.integers(0, 3),
)
@settings(max_examples=200)
def test_the_longest_beginning_is_found(
    held: list[list[int]], wanted: list[int], n_removed: int
) -> None:
    index = PageIndex()
    for page, tokens in enumerate(held):
        index.add(page, b"before", tokens)
    for page in list(index.keys())[:n_removed]:
        index.remove(page)
    index.check_integrity()
    found = index.find_within(b"before", wanted)
    pages = index.keys()
    left = [n_alike(held[page], wanted) for page in pages]
    assert (found.n if found else 0) == max(left, default=0)
    assert found is None or n_alike(held[found.page], wanted) == found.n


def test_a_page_can_be_found_while_its_owner_adds_to_it_and_is_continued_by_one_only() -> None:
    pool = PagePool(2)
    pages = pool.allocate(1)
    assert pages is not None
    pool.publish(pages[0], b"", [1, 2])
    found = pool.find_within(b"", [1, 2, 3])
    assert found == Beginning(pages[0], 2, is_whole=True) and not pool.can_be_continued(found)
    pool.publish(pages[0], b"", [1, 2, 3])
    pool.release(pages)
    found = pool.find_within(b"", [1, 2, 4])
    assert found == Beginning(pages[0], 2, is_whole=False) and not pool.can_be_continued(found)
    found = pool.find_within(b"", [1, 2, 3, 4])
    assert found is not None and pool.can_be_continued(found)
    pool.retain(pages)
    assert not pool.can_be_continued(found)
    assert pool.find_within(b"", [1, 2, 3, 4]) == found, "what it holds stays there"


def test_a_page_that_was_of_use_is_evicted_later() -> None:
    pool = PagePool(2)
    for token in (1, 2):
        pages = pool.allocate(1)
        assert pages is not None
        pool.publish(pages[0], b"", [token])
        pool.release(pages)
    found = pool.find_within(b"", [1])
    assert found is not None
    pool.touch(found.page)
    assert pool.allocate(1) is not None
    assert pool.find_within(b"", [1]) == found and pool.find_within(b"", [2]) is None


def test_a_page_that_grew_to_what_another_holds_is_not_kept_twice() -> None:
    pool = PagePool(2)
    pages = pool.allocate(2)
    assert pages is not None
    pool.publish(pages[0], b"", [1, 2, 3])
    pool.publish(pages[1], b"", [1, 2])
    pool.publish(pages[1], b"", [1, 2, 3])
    pool.release(pages)
    assert pool.n_kept == 1
    pool.check_integrity()


def test_pages_for_rounds_up() -> None:
    assert [pages_for(n) for n in (0, 1, PAGE_TOKENS, PAGE_TOKENS + 1)] == [0, 1, 1, 2]
