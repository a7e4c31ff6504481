"""A rank's side of the background fill: pieces that it keeps for plans that may come."""

from __future__ import annotations

import numpy as np

from cluster.weights.inbox import PieceInbox
from cluster.weights.keeping import keep_checked
from cluster.weights.store import WeightStore
from cluster.wire.messages import Chunk, Credit, Spares, Want


class SpareInbox:
    """The pieces of one Spares message on their way to the disk."""

    def __init__(self, spares: Spares, store: WeightStore) -> None:
        self._store = store
        self._names = [digest.tobytes().hex() for digest in spares.digests]
        self._inbox = PieceInbox(spares.sizes.tolist())

    def want(self) -> Want:
        """What is missing; nothing where nothing can be kept."""
        missing = []
        if self._store.is_writable:
            missing = [n for n, name in enumerate(self._names) if not self._store.has(name)]
        self._inbox.want(missing)
        return Want(np.array(missing, np.int32))

    def take(self, chunk: Chunk) -> Credit:
        """Takes a chunk and keeps the piece that is whole with it; returns what to answer. Raises
        ProtocolError for a chunk that is not wanted."""
        whole = self._inbox.add(chunk)
        if whole is not None:
            self._inbox.take(chunk.piece)
            keep_checked(self._store, self._names[chunk.piece], whole)
        return Credit(1)
