"""The three standard streams as machines have them: closed, full, cut off, of any encoding."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

ERRORS = "backslashreplace"  # a character that an encoding lacks is shown by its number


class Stderr(io.TextIOBase):
    """Standard error, unbuffered. What cannot be written is dropped: a full disk or a closed pipe
    behind the messages is no reason to stop the work."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = memoryview(text.encode(self._encoding, ERRORS))
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(2, data) :]
        return len(text)


class Stdout(io.FileIO):
    """Standard output below its buffers; remembers why it could not be written."""

    error: OSError | None = None

    def write(self, data: Buffer) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def prepare_streams() -> None:
    """Makes all three streams usable, whatever the process was started with.

    A closed one gets a place holder, so that no file or socket is opened under its number: reading
    finds nothing, writing to stdout is refused as by a closed one, and stderr takes everything.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # opens the lowest number
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        buffer = io.BufferedWriter(Stdout(1, "w", closefd=False))
        is_line_wise = os.isatty(1)
        sys.stdout = io.TextIOWrapper(buffer, encoding, ERRORS, line_buffering=is_line_wise)
    sys.stderr = Stderr(getattr(sys.stderr, "encoding", None) or "utf-8")


def stdout_error() -> OSError | None:
    """Writes out what stdout still holds; returns why it could not be written, None where it
    could."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Stdout) else None


def give_up_stdout() -> None:
    """Drops what stdout still holds, so that the interpreter does not try again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
