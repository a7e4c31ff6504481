"""Temporary folders of processes that were killed: the next process removes them.

A folder that is in use holds a file that its process has locked; the system opens the lock when the
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows has no such locks: there folders are never held to be left over
    fcntl = None  # type: ignore[assignment]

LOCK = ".in-use"
RANDOM_PART = 8  # characters that tempfile adds to a prefix
LEAST_AGE_S = 60.0  # younger ones may be about to be locked
MOST_TRIED = 1000  # in a folder that many write to


class HeldFolder:
    """A new folder `name` in `place`, locked for as long as this process lives, and removed by
    cleanup() or at the end of the process. Raises OSError where it cannot be made."""

    def __init__(self, prefix: str, place: str) -> None:
        # Others tidy up there too: a folder that is gone already is no error at the end.
        self._folder = tempfile.TemporaryDirectory(
            prefix=prefix, dir=place, ignore_cleanup_errors=True
        )
        self.name = self._folder.name
        self._lock: int | None = None
        if fcntl is not None:
            try:
                self._lock = os.open(Path(self.name) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # no locks on that file system: never taken for left over
                with contextlib.suppress(OSError):
                    (Path(self.name) / LOCK).unlink()

    def cleanup(self) -> None:
        self._folder.cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> str:
        return self.name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup()


def remove_leftovers(prefix: str, place: str) -> None:
    """Removes the folders of this user in `place` that a HeldFolder of the same prefix was, and
    whose process is gone. Raises nothing: what cannot be removed stays."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        found = (e for e in entries if e.name.startswith(prefix))
        for entry in [e for e, _ in zip(found, range(MOST_TRIED), strict=False)]:
            if len(entry.name) == len(prefix) + RANDOM_PART:
                with contextlib.suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    """Removes one, unless it is young, another's, or in use. Raises OSError."""
    about = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False) or about.st_uid != os.getuid():
        return
    if time.time() - about.st_mtime < LEAST_AGE_S:
        return
    lock = os.open(Path(entry.path) / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(lock)
