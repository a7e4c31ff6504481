"""Turns of processes that would make the same file: one makes it, the others wait and read it.

A root and the workers of one machine start at once and need the same kernels. A process that is
killed gives its turn up; one that is suspended keeps the others waiting for a while only, since
whoever waits may always make the file itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels.whole_files import TEMPORARY

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: all of them make the file
    flock = None  # type: ignore[assignment]

LOOK_S = 0.02


@contextmanager
def turn(file: Path, wait_s: float) -> Iterator[None]:
    """A context that one process at a time is in for a file, unless another stays there for
    `wait_s`. Where files cannot be locked, all are."""
    lock = file.with_name(f"{TEMPORARY}{file.name}")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        yield
        return
    has_turn = False
    try:
        has_turn = _wait(handle, wait_s)
        yield
    finally:
        if has_turn:
            lock.unlink(missing_ok=True)
        os.close(handle)


def _wait(handle: int, wait_s: float) -> bool:
    """Locks an open file; returns whether it could."""
    until_s = time.monotonic() + wait_s
    while flock is not None:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_S)
        except OSError:  # a file system without locks
            return False
        else:
            return True
    return False
