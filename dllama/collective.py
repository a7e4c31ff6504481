"""How ranks meet inside a forward pass. The model sees this and never a rank number."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Collective(Protocol):
    """Two operations. Every rank calls them in the same order with the same shapes."""

    def all_reduce(self, x: np.ndarray) -> np.ndarray:
        """The sum of every rank's x (T, dim) float32, added in rank order, so that all ranks hold
        the same bits. May return x itself, changed in place, or a buffer that stays valid until
        the next call. Raises PeerLost."""
        ...

    def gather(self, part: bytes) -> list[bytes] | None:
        """On rank 0 every rank's part, in rank order; None elsewhere. Raises PeerLost."""
        ...


class SoloCollective:
    """A cluster of one: nothing to add, nothing to wait for."""

    def all_reduce(self, x: np.ndarray) -> np.ndarray:
        return x

    def gather(self, part: bytes) -> list[bytes] | None:
        return [part]
