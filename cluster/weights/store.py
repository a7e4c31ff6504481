"""Pieces of weights on a worker's disk: a folder of files that are named by their SHA-256.

Whatever is read is hashed again, so nothing in the folder is trusted: a file that is damaged, cut
short or another's counts as absent. Any number of processes share a folder; a file appears whole or
not at all, and may go at any time. No failure of the disk is an error: it is told once, and the
piece is then not kept, or sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cluster.weights.eviction import Kept, allowed_bytes, to_evict
from kernels.whole_files import TEMPORARY, Buffer, write_whole

log = logging.getLogger(__name__)

RESCAN_BYTES = 256 << 20  # written by us, after which we look what others have written
MAX_PIECE_BYTES = 1 << 30  # a larger file is none of ours
ABANDONED_S = 600.0  # a file that was being written that long ago is left of a killed process

TRIAL = f"{TEMPORARY}trial"  # a file that is written to see whether the folder can be
_NAME = re.compile("[0-9a-f]{64}")


class WeightStore:
    """A folder of pieces, at most `max_bytes` in all; 0: none is kept or looked for.

    Thread-safe. `clock` gives the time of files, in seconds.
    """

    def __init__(
        self, folder: Path, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._max_bytes, self._clock = folder, max_bytes, clock
        self._kept_bytes = 0  # of all processes, when they were counted, and our own since then
        self._since_scan = RESCAN_BYTES  # bytes that we wrote since
        self._is_writable = max_bytes > 0
        self._told: set[str] = set()
        self.n_damaged = 0  # pieces that were found and were not whole
        self._lock = threading.Lock()

    @property
    def is_writable(self) -> bool:
        """False once the disk has refused a piece, or where nothing is kept."""
        return self._is_writable

    def check(self) -> None:
        """Warns where the folder cannot be used, as the first piece would."""
        if self._is_writable:
            with self._lock, self._telling_refusals():
                self._folder.mkdir(parents=True, exist_ok=True)
                write_whole(self._folder / TRIAL, b"")
                (self._folder / TRIAL).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Returns whether a piece is there, and marks it as used now: it is not evicted soon."""
        if self._max_bytes == 0:
            return False
        try:
            now_s = self._clock()
            os.utime(self._folder / name, (now_s, now_s))
        except FileNotFoundError:
            return False
        except OSError:  # another user's folder, or one that cannot be written
            return os.path.exists(self._folder / name)  # noqa: PTH110  Path's raises some errors
        return True

    def read(self, name: str) -> bytes | None:
        """Returns the piece whose SHA-256 is `name`; None if it is not there whole."""
        if self._max_bytes == 0:
            return None
        file = self._folder / name
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_PIECE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell_once("reading", f"{file} cannot be read ({_reason(error)})")
            return None
        if hashlib.sha256(data).hexdigest() == name:
            return data
        self._tell_once("damage", f"{file} is damaged; it is removed and its weights are sent")
        self._remove([name])
        with self._lock:
            self.n_damaged += 1
        return None

    def keep(self, name: str, data: Buffer, *, may_evict: bool = True) -> bool:
        """Writes a piece, for which older ones go if they may; returns whether it is there now. The
        caller has checked that its SHA-256 is `name`."""
        if not self._is_writable:
            return False
        with self._lock, self._telling_refusals():
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(len(data), may_evict=may_evict):
                return False
            write_whole(self._folder / name, data)
            now_s = self._clock()
            os.utime(self._folder / name, (now_s, now_s))
            self._kept_bytes += len(data)
            self._since_scan += len(data)
            return True
        return False  # the disk has refused it

    @contextlib.contextmanager
    def _telling_refusals(self) -> Iterator[None]:
        """Tells of an OSError of the body, after which nothing is kept."""
        try:
            yield
        except OSError as error:
            self._is_writable = False
            self._tell_once(
                "writing",
                f"weights are not kept in {self._folder} ({_reason(error)}): they will be sent "
                "again; choose another folder with --cache-dir",
            )

    def _make_room(self, n_bytes: int, *, may_evict: bool) -> bool:
        disk = shutil.disk_usage(self._folder)
        if self._since_scan >= RESCAN_BYTES:
            self._count(list(self._scan()))
        allowed = allowed_bytes(self._max_bytes, self._kept_bytes, disk.total, disk.free)
        if self._kept_bytes + n_bytes <= allowed:
            return True
        if not may_evict:
            return False
        kept = list(self._scan())
        self._count(kept)
        allowed = allowed_bytes(self._max_bytes, self._kept_bytes, disk.total, disk.free)
        self._remove(to_evict(kept, n_bytes, allowed, self._clock()))
        self._count(list(self._scan()))
        if self._kept_bytes + n_bytes <= allowed:
            return True
        self._is_writable = False  # what is in use fills it; there will be no room soon
        self._tell_once(
            "room",
            f"no more weights are kept in {self._folder}: {self._kept_bytes / 1e9:.2f} GB are "
            f"there, and {allowed / 1e9:.2f} GB are allowed (--cache-gb, and a tenth of the disk "
            "stays free); the others will be sent again",
        )
        return False

    def _count(self, kept: Sequence[Kept]) -> None:
        self._kept_bytes, self._since_scan = sum(piece.n_bytes for piece in kept), 0

    def _scan(self) -> Iterator[Kept]:
        """Yields all pieces, and no other files; removes what killed processes have left."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_piece = _NAME.fullmatch(entry.name) is not None
                if not is_piece and not entry.name.startswith(TEMPORARY):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if is_piece:
                    yield Kept(entry.name, found.st_size, found.st_mtime)
                elif abs(self._clock() - found.st_mtime) > ABANDONED_S:
                    self._remove([entry.name])

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                self._tell_once("removing", f"{name} cannot be removed ({_reason(error)})")

    def _tell_once(self, cause: str, message: str) -> None:
        if cause not in self._told:
            self._told.add(cause)
            log.warning("%s", message)


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it is no folder"
    return error.strerror or str(error)
