"""Puts the chunks of pieces together, in whatever order the pieces come. Knows no sockets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.wire.messages import Chunk
from dllama.errors import ProtocolError


class PieceInbox:
    """The pieces under way to a rank: those it wants, the one that is arriving, and those that
    came before they were needed. `sizes` are the bytes of all pieces, by number."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._wanted: set[int] = set()
        self._whole: dict[int, np.ndarray] = {}
        self._arriving = np.empty(0, np.uint8)
        self._number = -1  # of the piece that is arriving
        self._filled = 0

    def want(self, numbers: Sequence[int]) -> None:
        self._wanted.update(numbers)

    def add(self, chunk: Chunk) -> np.ndarray | None:
        """Takes a chunk; returns the piece that is whole with it, uint8 (n,), if one is.

        Raises ProtocolError for a chunk of a piece that is not wanted, or that is not the next one.
        """
        if self._number < 0 and chunk.offset == 0 and chunk.piece in self._wanted:
            self._number, self._filled = chunk.piece, 0
            self._arriving = np.empty(self._sizes[chunk.piece], np.uint8)
        n_bytes = len(chunk.data)
        is_next = chunk.piece == self._number and chunk.offset == self._filled
        if not is_next or not 0 < n_bytes <= len(self._arriving) - self._filled:
            raise ProtocolError(
                f"{n_bytes} bytes at {chunk.offset} of the piece of weights {chunk.piece} came "
                f"where piece {self._number} has {self._filled} of {len(self._arriving)} bytes and "
                f"{len(self._wanted)} pieces are due"
            )
        self._arriving[self._filled : self._filled + n_bytes] = chunk.data
        self._filled += n_bytes
        if self._filled < len(self._arriving):
            return None
        self._wanted.remove(self._number)
        self._whole[self._number] = self._arriving
        self._number = -1
        return self._arriving

    def take(self, number: int) -> np.ndarray | None:
        """Returns a piece that has arrived, uint8 (n,), and forgets it."""
        return self._whole.pop(number, None)
