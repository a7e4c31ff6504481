"""The KV cache as sequences see it: what is found again is what the key stands for."""

from __future__ import annotations

from dllama.engine.engine import Engine
from dllama.engine.kv.cache import KvCache
from dllama.engine.sequence import Sequence
from dllama.requests import SamplingParams, Submit
from dllama.step import PAGE_TOKENS
from tests.dllama.engine.days import drain, expected, prompt
from tests.dllama.engine.history_runner import HistoryRunner

GREEDY = SamplingParams(temperature=0.0)


def test_an_equal_page_after_another_beginning_is_not_found() -> None:
    """Three prompts of two pages: the third has the first one's second page, after the second
    one's first page."""
    a, a2 = prompt(PAGE_TOKENS, 1), prompt(PAGE_TOKENS, 2)
    b, x = prompt(PAGE_TOKENS, 3), prompt(PAGE_TOKENS, 4)
    runner = HistoryRunner()
    engine = Engine(runner)
    for name, tokens in (("ab", [*a, *b, 5]), ("a2x", [*a2, *x, 5]), ("a2b", [*a2, *b, 5])):
        submit = Submit(name, tokens, GREEDY, max_tokens=8)
        engine.submit(submit)
        heard = drain(engine)
        assert heard.answer(name) == expected(submit, runner)
    assert heard.outputs["a2b"][0].n_cached == PAGE_TOKENS


def test_a_shift_unpublishes_the_pages_that_it_overwrites() -> None:
    max_len = 4 * PAGE_TOKENS
    kv = KvCache(4, max_len)
    submit = Submit("a", prompt(max_len), GREEDY, context_shift=True, n_keep=PAGE_TOKENS)
    sequence = Sequence.from_submit(submit, 97, 0.0)
    assert kv.admit(sequence, 0)
    kv.note_computed(sequence, max_len - 1)
    keys, pages = sequence.page_keys(3), list(sequence.pages)
    assert kv.pool.find(keys) == pages[:3] and kv.is_full(sequence)
    shift = kv.shift(sequence)
    assert shift.to_pages.tolist() == list(sequence.pages) and sequence.pages[0] == pages[0]
    assert kv.pool.find(keys) == pages[:1], "kept tokens can still be found"
    assert kv.pool.find(keys[1:]) == [] == kv.pool.find(keys[2:])
    kv.check_integrity([sequence])
    published = kv.pool.published()
    kv.grow(sequence)
    kv.note_computed(sequence, 1)
    assert kv.pool.published() == published, "pages after dropped tokens are nobody else's"


def test_a_shift_writes_to_no_page_that_another_sequence_reads() -> None:
    max_len = 4 * PAGE_TOKENS
    kv, tokens = KvCache(8, max_len), prompt(max_len)
    a, b = (
        Sequence.from_submit(Submit(name, asked, GREEDY, context_shift=True, n_keep=2), 97, 0.0)
        for name, asked in (("a", tokens), ("b", tokens[: 3 * PAGE_TOKENS + 1]))
    )
    assert kv.admit(a, 0)
    kv.note_computed(a, max_len - 1)
    assert kv.admit(b, 0)
    shared = list(b.pages[:3])
    assert shared == list(a.pages[:3])
    shift = kv.shift(a)
    assert shift.from_pages[:3].tolist() == shared
    assert set(shift.to_pages.tolist()).isdisjoint(b.pages)
    assert kv.pool.find(b.page_keys(3)) == shared, "what they hold is still there"
    kv.check_integrity([a, b])


def test_drafts_leave_spare_pages_to_others() -> None:
    kv = KvCache(4, 4 * PAGE_TOKENS)
    sequence = Sequence.from_submit(Submit("a", prompt(PAGE_TOKENS), GREEDY), 97, 0.0)
    assert kv.admit(sequence, 0) and kv.pool.n_free == 3
    assert kv.reserve(sequence, PAGE_TOKENS + 8, n_spare=2) == PAGE_TOKENS
    assert kv.pool.n_free == 2
    assert kv.reserve(sequence, PAGE_TOKENS + 8, n_spare=3) == PAGE_TOKENS, "what it has, it keeps"
    assert kv.reserve(sequence, PAGE_TOKENS + 8, n_spare=1) == PAGE_TOKENS + 8
