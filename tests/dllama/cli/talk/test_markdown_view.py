"""Markdown on a terminal as it grows: what is printed stays, and is what the whole text shows."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dllama.cli.talk.markdown_blocks import complete_length
from dllama.cli.talk.markdown_view import MarkdownView, rendered

LINES = st.sampled_from(
    ["", "text", "more *text*", "- item", "  more of it", "1. one", "```", "```py", "    code",
     "> quoted", "# title", "| a | b |", "|---|---|", "~~~"]
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\n\ntwo\n", "one\n\n"),
        ("- a\n\n-", ""),
        ("one\ntwo", ""),
        ("one\n\n", ""),
        ("- a\n\n- b\n\n  more\n\nafter\n", "- a\n\n- b\n\n  more\n\n"),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nc\n", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nx\n````\n\ny\n", "````\n```\n\nx\n````\n\n"),
    ],
)
def test_whole_blocks_are_known(text: str, done: str) -> None:
    assert text[: complete_length(text)] == done


@given(st.lists(LINES, max_size=12))
def test_what_is_whole_stays_so(lines: list[str]) -> None:
    text = "\n".join(lines)
    lengths = [complete_length(text[:n]) for n in range(len(text) + 1)]
    assert lengths == sorted(lengths)


def shown(text: str, size: int) -> list[str]:
    """What is on the screen in the end, as a terminal would show it, less empty lines."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=40, height=12, color_system=None)
    view = MarkdownView(console)
    for at in range(0, len(text), size):
        view.push(text[at : at + size])
    view.end()
    screen: list[str] = [""]
    row = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", out.getvalue()):
        if part == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            screen[row] = ""
        elif not part.startswith("\x1b") and part != "\r":
            screen[row] += part
    return [line.rstrip() for line in screen if line.strip()]


def test_pieces_show_what_the_whole_does() -> None:
    text = "# A title\n\nSome *words* of a text.\n\n- one\n- two\n\n```py\nx = 1\n```\n\nThe end."
    whole = shown(text, len(text))
    for size in (1, 3, 7):
        assert shown(text, size) == whole
    assert "The end." in whole and any("x = 1" in line for line in whole)


def test_a_model_does_not_move_the_cursor() -> None:
    out = io.StringIO()
    view = MarkdownView(Console(file=out, force_terminal=True, width=40, color_system=None))
    view.push("\x1b[2Jgone\x07")
    view.end()
    assert "\x1b[2J" not in out.getvalue() and "\x07" not in out.getvalue()
    assert rendered("x").markup == "x"
