"""Text in pieces, broken between words."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dllama.cli.terminal.word_wrap import WordWrap

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps."


def wrapped(pieces: list[str], width: int) -> str:
    wrap = WordWrap(lambda: width)
    return "".join([*map(wrap.push, pieces), wrap.flush()])


@pytest.mark.parametrize("width", [12, 20, 40, 80])
@pytest.mark.parametrize("n", [1, 3, 100])
def test_lines_are_those_of_textwrap_however_the_text_comes(width: int, n: int) -> None:
    pieces = [SENTENCE[i : i + n] for i in range(0, len(SENTENCE), n)]
    assert wrapped(pieces, width).split("\n") == textwrap.wrap(SENTENCE, width)


def test_a_word_is_written_as_soon_as_it_is_whole() -> None:
    wrap = WordWrap(lambda: 80)
    assert [wrap.push(piece) for piece in ("Hel", "lo wor", "ld\n", "!")] == [
        "", "Hello", " world\n", "",
    ]  # fmt: skip
    assert wrap.flush() == "!" and wrap.flush() == ""


def test_indents_and_empty_lines_stay() -> None:
    code = "def f():\n    return 1\n\n\tx = 2\n"
    assert wrapped([code], 80) == code.expandtabs()


def test_wide_characters_count_twice_and_may_be_parted() -> None:
    assert wrapped(["日本語日本語"], 6) == "日本語\n日本語"


def test_a_word_longer_than_a_line_is_left_whole() -> None:
    assert wrapped(["see https://example.org/a/long/path now"], 10) == (
        "see\nhttps://example.org/a/long/path\nnow"
    )


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert wrapped(["a\x1b[2Jb\x07\x9b c\x7f"], 80) == "a[2Jb c"


@given(st.lists(st.text("ab 語\n", max_size=8), max_size=12), st.integers(4, 30))
def test_no_letter_is_lost_and_no_line_too_long(pieces: list[str], width: int) -> None:
    text = "".join(pieces)
    found = wrapped(pieces, width)
    assert found.split() != [] or not text.split()
    assert "".join(found.split()) == "".join(text.split())
    for line in found.split("\n"):
        assert cell_len(line) <= width or " " not in line.strip()
