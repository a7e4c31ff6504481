"""Bytes that are piped into a command become text, or a sentence."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.cli.terminal import text_input
from dllama.cli.terminal.text_input import decoded_text, next_line, piped_text, typed_text
from dllama.errors import RequestError


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        ("Käse\n".encode(), "utf-8", "Käse\n"),
        ("\ufeffKäse\r\nund\rBrot".encode(), "utf-8", "Käse\nund\nBrot"),
        ("Käse".encode(), "latin-1", "Käse"),  # whoever says latin-1 pipes UTF-8 all the same
        ("Käse".encode(), "ascii", "Käse"),
        ("Käse".encode("latin-1"), "iso8859-1", "Käse"),
        ("日本".encode("euc_jp"), "euc_jp", "日本"),
        (b"", "utf-8", ""),
    ],
)
def test_bytes_that_are_text(data: bytes, encoding: str, text: str) -> None:
    assert decoded_text(data, encoding) == text
    assert piped_text(io.TextIOWrapper(io.BytesIO(data), encoding)) == text


def test_a_pipe_that_says_nothing_is_said_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_input, "SILENT_S", 0.05)
    read, write = os.pipe()

    def says_at_last() -> None:
        os.write(write, b"at last")
        os.close(write)

    with os.fdopen(read) as stream:
        assert piped_text(stream, says_at_last) == "at last"
    read, write = os.pipe()
    os.write(write, b"at once")
    os.close(write)
    with os.fdopen(read) as stream:
        assert piped_text(stream, lambda: pytest.fail("it has said something")) == "at once"


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "ascii", "us-ascii"])
def test_bytes_that_are_none(encoding: str) -> None:
    with pytest.raises(RequestError, match="byte 0xe9 at position 3; convert it first"):
        decoded_text(b"caf\xe9", encoding)


def test_lines_end_with_the_input() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo"), "utf-8")
    assert [next_line(stream) for _ in range(3)] == ["one", "", "two"]
    with pytest.raises(EOFError):
        next_line(stream)


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_a_sentence(data: bytes) -> None:
    try:
        text = decoded_text(data, "utf-8")
    except RequestError as error:
        assert "UTF-8" in str(error)
    else:
        assert "\r" not in text
        typed_text(text, "the prompt")


def test_a_typed_word_that_is_no_text() -> None:
    word = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(RequestError, match=r"the prompt 'caf.*holds bytes that are no text"):
        typed_text(word, "the prompt")
    assert typed_text("Käse", "the prompt") == "Käse"
    in_ascii = "Käse".encode().decode("ascii", "surrogateescape")
    assert typed_text(in_ascii, "the prompt") == "Käse"
