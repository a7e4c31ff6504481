"""Reads pieces ahead of their use and keeps new ones, in threads that do not hold the GIL while
they hash: a rank goes on with packing meanwhile."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cluster.weights.store import WeightStore

AHEAD_BYTES = 16 << 20  # of pieces that are read before they are needed
BEHIND = 16  # pieces that wait to be written
N_READERS = 2


class ReadAhead:
    """Pieces of a store in the order of their use, `names` and their sizes by number."""

    def __init__(
        self, store: WeightStore, names: Sequence[str], sizes: Sequence[int], order: Sequence[int]
    ) -> None:
        self._store, self._names, self._sizes = store, names, sizes
        self._left: Iterator[int] = iter(order)
        self._reading: deque[tuple[int, Future[bytes | None]]] = deque()
        self._ahead_bytes = 0
        self._pool = ThreadPoolExecutor(N_READERS, thread_name_prefix="weights-read")

    def take(self, number: int) -> bytes | None:
        """Returns the next piece, whose number it has to be; None if it is not there whole."""
        self._fill()
        first, future = self._reading.popleft()
        assert first == number, "pieces are taken in their order"
        self._ahead_bytes -= self._sizes[number]
        data = future.result()
        self._fill()
        return data

    def _fill(self) -> None:
        while self._ahead_bytes < AHEAD_BYTES:
            number = next(self._left, None)
            if number is None:
                return
            reading = self._pool.submit(self._store.read, self._names[number])
            self._reading.append((number, reading))
            self._ahead_bytes += self._sizes[number]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Keeper:
    """Writes pieces to a store if their bytes are those of their names."""

    def __init__(self, store: WeightStore) -> None:
        self.n_wrong = 0  # pieces that were not what their names said; whole after close()
        self._store = store
        self._writing: deque[Future[bool]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="weights-write")

    def keep(self, name: str, data: np.ndarray) -> None:
        """Checks and writes a piece, uint8 (n,), which stays as it is until then."""
        while len(self._writing) >= BEHIND:
            self._finish_one()
        self._writing.append(self._pool.submit(self._keep_checked, name, data))

    def close(self) -> None:
        """Waits until all is written."""
        while self._writing:
            self._finish_one()
        self._pool.shutdown()

    def _finish_one(self) -> None:
        self.n_wrong += not self._writing.popleft().result()

    def _keep_checked(self, name: str, data: np.ndarray) -> bool:
        if not is_named(name, data):
            return False
        self._store.keep(name, data.data)
        return True


def is_named(name: str, data: np.ndarray) -> bool:
    """Returns whether the SHA-256 of a piece, uint8 (n,), is its name."""
    return hashlib.sha256(data.data).hexdigest() == name
