"""Progress counters of a session: a small mapped file that the rank writes and its daemon reads.

A rank cannot answer while a kernel runs, so the counters are in shared memory: the first word grows
with every kernel call, another with every heartbeat of the rank's loop.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from dllama.host.temporary import temporary_file
from kernels.team import TICKET

KERNEL_WORDS = 64  # the state of the rank's thread team, which holds its counter
WORDS = 128
HEARTBEATS = 64  # the word of the heartbeats, on a cache line of its own


class ProgressFile:
    """The mapped words, (WORDS,) int64, aligned to a page."""

    def __init__(self, path: Path, *, is_owner: bool) -> None:
        self.path = path
        self._is_owner = is_owner
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 8 * WORDS)
        self._words: np.ndarray = np.frombuffer(self._map, np.int64)
        if not is_owner:
            self._file.close()
        elif os.name == "posix":  # from here on nothing is left, however both sides end
            path.unlink()
            self.path = Path(f"/dev/fd/{self._file.fileno()}")

    @classmethod
    def create(cls) -> ProgressFile:
        """Returns a fresh file, for a process that is started with `descriptors`. Raises
        ConfigError where there is no place."""
        return cls(temporary_file("dllama-rank-", bytes(8 * WORDS)), is_owner=True)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a process has to inherit, to open the file by its path. Windows needs none: the file
        keeps its name there until close()."""
        return (self._file.fileno(),) if os.name == "posix" else ()

    @property
    def kernel_words(self) -> np.ndarray:
        """The words that a Rank gets as its `progress`: (KERNEL_WORDS,) int64."""
        return self._words[:KERNEL_WORDS]

    def beat(self) -> None:
        """Counts a heartbeat of the rank's loop."""
        self._words[HEARTBEATS] += 1

    def total(self) -> int:
        """Returns a number that stands still only while the rank does: the sum of regions begun,
        pieces of work claimed inside of one (which may take seconds), and heartbeats."""
        words = self._words
        total = int(words[0]) + int(words[TICKET // 8]) + int(words[HEARTBEATS])
        return total & ((1 << 62) - 1)

    def close(self) -> None:
        self._file.close()
        if self._is_owner and os.name != "posix":
            self.path.unlink(missing_ok=True)
        # the map itself goes with the last array over it: a kernel may still hold one
