"""A command that is told to end, or whose terminal is closed, leaves as after Ctrl-C: what it has
begun to write is removed, and what it has started ends with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDED = 128  # plus the number of the signal: an exit code, as shells count
_NAMES = ("SIGTERM", "SIGHUP")  # the second is not known everywhere


@contextmanager
def in_order() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise SystemExit meanwhile, where they would end the process at once:
    a signal that is ignored stays so (nohup), and commands may have ways of their own."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise SystemExit(ENDED + number)
