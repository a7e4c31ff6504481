"""A file that grows while it is downloaded, with the digest of what is there. Its length on disk is
all that has to survive a crash: what a power cut has damaged, the digest tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from dllama.hub.answers import WrongContent
from dllama.hub.checksum import Checksum, Hasher, hasher_for, kind_of
from dllama.hub.repository import RemoteFile

PART = ".part"
_READ_BYTES = 8 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class PartialFile:
    """The beginning of a remote file, open for more. Used by one thread at a time."""

    def __init__(self, path: Path, wanted: RemoteFile) -> None:
        self._path, self._wanted = path, wanted
        self._part = path.with_name(path.name + PART)
        self._fd = -1
        self._hasher: Hasher = hasher_for(wanted.checksum, wanted.n_bytes)
        self.n_bytes = 0  # that are here

    def open(self, beginning: Path | None = None) -> Self:
        """Opens or creates the file. `beginning`, a file that may have the same content, is linked
        where nothing is here yet. Raises OSError."""
        self._part.parent.mkdir(parents=True, exist_ok=True)
        if beginning is not None and not self._part.exists():
            with suppress(OSError):  # another disk, say: then it is downloaded
                os.link(beginning, self._part)
        self._fd = os.open(self._part, _FLAGS, 0o644)
        if os.fstat(self._fd).st_size > self._wanted.n_bytes:
            self.clear()
        return self

    def read_on(self) -> bool:
        """Hashes more of what was here before; returns whether there was any."""
        data = os.read(self._fd, _READ_BYTES)
        self._hasher.update(data)
        self.n_bytes += len(data)
        return bool(data)

    def append(self, data: bytes) -> None:
        """Writes what follows. Raises WrongContent where the file would be longer than it may be,
        OSError where the disk is full."""
        if self.n_bytes + len(data) > self._wanted.n_bytes:
            raise WrongContent(
                f"{self._wanted.path}: the server sends more than the {self._wanted.n_bytes} bytes "
                "that the hub's metadata says."
            )
        view = memoryview(data)
        while view:
            n = os.write(self._fd, view)
            self._hasher.update(view[:n])
            self.n_bytes += n
            view = view[n:]

    def clear(self) -> None:
        """Begins the file anew: another file, since this one may be linked elsewhere."""
        self.close()
        self._part.unlink(missing_ok=True)
        self._fd = os.open(self._part, _FLAGS, 0o644)
        self._hasher = hasher_for(self._wanted.checksum, self._wanted.n_bytes)
        self.n_bytes = 0

    @property
    def is_whole(self) -> bool:
        return self.n_bytes == self._wanted.n_bytes

    def finish(self) -> Checksum:
        """Gives the file its name, once its digest is right; returns the digest. Raises
        WrongContent."""
        expected = self._wanted.checksum
        found = Checksum(kind_of(expected), self._hasher.hexdigest())
        if expected is not None and found != expected:
            raise WrongContent(
                f"{self._wanted.path} arrived damaged: its digest is {found}, and the hub says "
                f"{expected.hexdigest}."
            )
        os.fsync(self._fd)
        self._part.replace(self._path)
        return found

    def discard(self) -> None:
        """Removes what is here of the file."""
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
