"""The table of pairs finds what a search through all tokens finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.engine.speculative import ngram
from dllama.engine.speculative.ngram import DEPTH, LONGEST, SHORTEST, NgramIndex, Place


def searched(tokens: list[int]) -> Place | None:
    """The same by comparing everything with everything."""
    n = len(tokens)
    ends = [e for e in range(SHORTEST, n) if tokens[e - SHORTEST : e] == tokens[n - SHORTEST :]]
    best: Place | None = None
    for end in sorted(ends, reverse=True)[:DEPTH]:
        length = max(
            k
            for k in range(SHORTEST, min(LONGEST, end) + 1)
            if tokens[end - k : end] == tokens[-k:]
        )
        if best is None or length > best.length:
            best = Place(end, length)
    return best


@given(
    tokens=st.one_of(
        st.lists(st.integers(0, 2), max_size=80),
        st.lists(st.integers(0, 131_071), max_size=10).map(lambda part: part * 5),
    ),
    cuts=st.lists(st.integers(0, 80)),
)
def test_finds_what_a_search_finds(tokens: list[int], cuts: list[int]) -> None:
    index = NgramIndex()
    for n in sorted({*(c for c in cuts if c < len(tokens)), len(tokens)}):
        index.follow(tokens[:n])
        assert index.find(tokens[:n]) == searched(tokens[:n])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies further back than the window is forgotten, what lies in it is found."""
    monkeypatch.setattr(ngram, "WINDOW", 50)
    index = NgramIndex()
    tokens: list[int] = []
    for i in range(1000):
        tokens.append(i * i % 23)  # period 23
        index.follow(tokens)
        assert len(index) <= 100
        found = index.find(tokens)
        assert i < 40 or found == Place(len(tokens) - 23, LONGEST)
    tokens += [7, 7, 7, *range(100, 160)]
    index.follow(tokens)
    assert index.find([*tokens]) is None


def test_a_first_long_prompt_is_cut_to_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "WINDOW", 50)
    index = NgramIndex()
    tokens = [*range(200), 1000, 1001, 5, 6, 1000, 1001]
    index.follow(tokens)
    assert len(index) == 50
    assert index.find(tokens) == Place(202, 2)
