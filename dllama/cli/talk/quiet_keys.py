"""Keys that are pressed while an answer is printed: they are not shown in the middle of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def keys_unseen() -> Iterator[None]:
    """Turns the terminal's echo off, where stdin is one; Ctrl-C works as ever."""
    try:
        import termios
    except ImportError:  # no POSIX terminal
        yield
        return
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):
        yield
        return
    unseen = list(before)
    unseen[3] &= ~termios.ECHO
    termios.tcsetattr(number, termios.TCSANOW, unseen)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(number, termios.TCSANOW, before)
