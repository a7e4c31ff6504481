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
    until_s = time.monotonic() + wait_s
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle, has_turn = _locked(lock, until_s)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        if has_turn:
            lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(lock: Path, until_s: float) -> tuple[int, bool]:
    """Returns a handle of the lock's file, and whether it is locked. Raises OSError.

    Who had the turn removes the file: a lock on one that is gone keeps nobody out who comes later,
    and so another one is opened."""
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        has_turn = _wait(handle, until_s)
        if not has_turn or _is_at(handle, lock):
            return handle, has_turn
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Returns whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _wait(handle: int, until_s: float) -> bool:
    """Locks an open file; returns whether it could before the clock said `until_s`."""
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
