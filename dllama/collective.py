"""The seam between ranks inside a forward pass. The model sees a Collective and never a rank."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Collective(Protocol):
    """Two operations. Every rank calls them in the same order with the same shapes."""

    def all_reduce(self, x: np.ndarray, out: np.ndarray) -> None:
        """Writes the sum of every rank's x (T, dim) float32 to `out`, which may be x itself. Added
        in rank order, so that all ranks hold the same bits. Raises PeerLost."""
        ...

    def gather(self, part: bytes) -> list[bytes] | None:
        """On rank 0 every rank's part, in rank order; None elsewhere. Raises PeerLost."""
        ...


class SoloCollective:
    """The Collective of a single rank: adds nothing and waits for nothing."""

    def all_reduce(self, x: np.ndarray, out: np.ndarray) -> None:
        if out is not x:
            np.copyto(out, x)

    def gather(self, part: bytes) -> list[bytes] | None:
        return [part]
