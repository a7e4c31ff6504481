"""One process at a time downloads a model, and others wait for it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class StagingLock:
    """A lock beside the folder of an unfinished model; the system frees it when its process ends,
    however it does."""

    def __init__(self, staging: Path) -> None:
        self._path = staging.with_name(staging.name + ".lock")
        self._fd = -1

    def try_acquire(self) -> bool:
        """Takes the lock, or returns False where somebody has it. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # whoever had it has just removed the folder
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed the file that we opened.
            is_ours = self._path.stat().st_ino == os.fstat(fd).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        except BaseException:
            os.close(fd)
            raise
        if not is_ours:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Gives the lock up, and leaves no file and no empty folder."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # there are other unfinished models
                self._path.parent.rmdir()
            os.close(self._fd)
            self._fd = -1
