"""A file that appears under its name when it is whole, and of which nothing is left otherwise."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class AppearingFile:
    """A file that is written beside its name. `begin` comes first, then any number of `write`, and
    `end` in any case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")

    def begin(self, head: bytes) -> None:
        """Opens the file and writes its head. Raises OSError, and leaves nothing then."""
        self._file = self._partial.open("wb")
        try:
            self._file.write(head)
        except BaseException:
            self._discard()
            raise

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)

    def end(self, *, is_whole: bool) -> None:
        """Gives the file its name if it `is_whole`, and removes it otherwise. Raises OSError where
        the disk is full for the rest, and leaves nothing then."""
        try:
            self._file.close()
            if is_whole:
                self._partial.replace(self._path)
        except BaseException:
            self._discard()
            raise
        if not is_whole:
            self._discard()

    def _discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)
