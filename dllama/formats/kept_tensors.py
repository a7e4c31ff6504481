"""Tensors that were made from others, kept for whoever reads them next."""

from __future__ import annotations

import threading

import numpy as np

N_PASSING = 4  # tensors that are read at once: by as many threads that hash them


class KeptTensors:
    """Whole tensors by name: the first `max_bytes` of them until `drop`, of all others the last
    few, until they are released. May be used by several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._kept: dict[str, np.ndarray] = {}
        self._passing: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> np.ndarray | None:
        with self._lock:
            return self._kept.get(name, self._passing.get(name))

    def has_room(self, n_bytes: int) -> bool:
        """Returns whether a tensor of this size would be kept until `drop`."""
        return n_bytes <= self._room

    def put(self, name: str, raw: np.ndarray) -> None:
        with self._lock:
            if name in self._kept:
                return
            if raw.nbytes <= self._room:
                self._room -= raw.nbytes
                self._kept[name] = raw
                return
            self._passing[name] = raw
            while len(self._passing) > N_PASSING:
                del self._passing[next(iter(self._passing))]

    def release(self, name: str) -> None:
        """Lets go of a tensor that is not kept until `drop`."""
        with self._lock:
            self._passing.pop(name, None)

    def drop(self) -> None:
        """Lets go of all, and keeps no more."""
        with self._lock:
            self._room = 0
            self._kept.clear()
            self._passing.clear()
