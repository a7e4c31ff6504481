"""Text that people type or pipe into a command, which has to be text and not any bytes."""

from __future__ import annotations

import codecs
import os
import select
import stat
from collections.abc import Callable
from typing import TextIO

from dllama.errors import RequestError

SILENT_S = 2.0  # after which a pipe is said to be waited for


def typed_text(text: str, what: str) -> str:
    """Returns a text of the command line. Where the locale's encoding lacks some of its bytes,
    which Python keeps as lone surrogates, it is read as UTF-8.

    Raises RequestError where it is not UTF-8 either.
    """
    if not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        raise RequestError(
            f"{what} {text!a} holds bytes that are no text; write it as UTF-8"
        ) from None


def decoded_text(data: bytes, encoding: str) -> str:
    """Returns piped bytes as text: UTF-8 with or without a byte order mark, or else what the
    user's settings name. Line ends become newlines.

    Raises RequestError where it is neither.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            raise RequestError(
                f"standard input is not UTF-8 text: byte 0x{data[error.start]:02x} at position "
                f"{error.start}; convert it first, for example with iconv -f latin1 -t utf-8"
            ) from None
        text = data.decode(encoding, "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_piped(stream: TextIO) -> bool:
    """Returns whether a stream is a pipe or a file, of which text is expected."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def piped_text(stream: TextIO, tell_waiting: Callable[[], None] | None = None) -> str:
    """Returns all that a stream holds, and calls `tell_waiting` where nothing comes at first.

    Raises RequestError where it is no text.
    """
    if tell_waiting is not None and _is_silent(stream):
        tell_waiting()
    return decoded_text(stream.buffer.read(), stream.encoding)


def _is_silent(stream: TextIO) -> bool:
    try:
        return not select.select([stream], [], [], SILENT_S)[0]
    except (OSError, ValueError):  # a system that cannot tell
        return False


def next_line(stream: TextIO) -> str:
    """Returns the next line of a stream without its end. Raises EOFError at the end, RequestError
    where it is no text."""
    data = stream.buffer.readline()
    if not data:
        raise EOFError
    return decoded_text(data, stream.encoding).rstrip("\n")
