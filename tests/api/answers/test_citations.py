"""Citations taken out of a text, whatever pieces it comes in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.citations import MAX_CLOSING_CHARS, CitationReader
from api.answers.events import Message

Told = list[tuple[int, int, str, list[tuple[int, tuple[int, ...]]]]]
CASES: list[tuple[str, str, Told]] = [
    ("a <co>b c</co: 0:[1,2],1:[0]>.", "a b c.", [(2, 5, "b c", [(0, (1, 2)), (1, (0,))])]),
    (
        "<co>a</co: 0:[0]><co>b</co: 1:[3]>",
        "ab",
        [(0, 1, "a", [(0, (0,))]), (1, 2, "b", [(1, (3,))])],
    ),
    ("<co>ü</co:2:[ 1 , 2 ]>", "ü", [(0, 1, "ü", [(2, (1, 2))])]),
    ("no marks < here <c", "no marks < here <c", []),
    ("<co>open", "open", []),
    ("<co>a</co>b", "ab", []),  # of no source
    ("a</co: 0:[1]>b", "ab", []),  # of no beginning
    ("<co></co: 0:[1]>", "", []),
    ("a </code> b", "a </code> b", []),
    ("a </co: 0:[1", "a </co: 0:[1", []),
    ("</co: " + "1" * MAX_CLOSING_CHARS, "</co: " + "1" * MAX_CLOSING_CHARS, []),
    ("", "", []),
]


def read(pieces: list[str]) -> tuple[str, Told]:
    reader, said = CitationReader(0), Message()
    for part in [part for piece in pieces for part in reader.push(piece)] + reader.flush():
        said.add(part)
    return said.text, [
        (c.begin, c.end, c.text, [(s.call, s.results) for s in c.sources]) for c in said.citations
    ]


@pytest.mark.parametrize(("text", "content", "told"), CASES)
def test_marks_are_no_text(text: str, content: str, told: Told) -> None:
    assert read([text]) == (content, told)
    assert read(list(text)) == (content, told)
    assert all(content[begin:end] == span for begin, end, span, _ in told)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 60), max_size=8))
def test_pieces_make_no_difference(case: tuple[str, str, Told], cuts: list[int]) -> None:
    text, content, told = case
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert read([text[a:b] for a, b in itertools.pairwise(edges)]) == (content, told)
