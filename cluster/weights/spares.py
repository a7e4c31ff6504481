"""A rank's side of the background fill: pieces that it keeps for plans that may come."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cluster.weights.inbox import PieceInbox
from cluster.weights.keeping import is_named
from cluster.weights.store import WeightStore
from cluster.wire.messages import Chunk, Credit, Spares, Want


class SpareInbox:
    """The pieces of Spares messages, one after the other, on their way to the disk.

    Nothing here waits for the disk: steps go on while it stalls. No other piece has to go for
    these, and what finds no room is not asked for.
    """

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._names: list[str] = []
        self._inbox = PieceInbox([])
        self._writing: deque[Future[bool]] = deque()
        self._has_room = True
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="weights-spare")

    def begin(self, spares: Spares) -> Want:
        """Takes the names of pieces; returns what is missing, or nothing if there is no room."""
        self._names = [digest.tobytes().hex() for digest in spares.digests]
        self._inbox = PieceInbox(spares.sizes.tolist())
        missing = []
        if self._store.is_writable and self._has_room:
            missing = [n for n, name in enumerate(self._names) if not self._store.has(name)]
        self._inbox.want(missing)
        return Want(np.array(missing, np.int32))

    def take(self, chunk: Chunk) -> list[Credit | Want]:
        """Takes a chunk and has the piece written that is whole with it; returns what to answer.
        Raises ProtocolError for a chunk that is not wanted."""
        whole = self._inbox.add(chunk)
        if whole is None:
            return [Credit(1), *self.answers()]
        self._inbox.take(chunk.piece)
        self._writing.append(self._pool.submit(self._keep, self._names[chunk.piece], whole))
        return self.answers()

    def answers(self) -> list[Credit | Want]:
        """Returns what to answer for the pieces that have been written since the last call: no more
        are sent than the disk takes."""
        answers: list[Credit | Want] = []
        while self._writing and self._writing[0].done():
            had_room, self._has_room = self._has_room, self._writing.popleft().result()
            answers.append(Credit(1))
            if had_room and not self._has_room:
                answers.append(Want(np.zeros(0, np.int32)))  # no more of these
        return answers

    def _keep(self, name: str, data: np.ndarray) -> bool:
        """Returns whether there may be room for more."""
        if not self._has_room:
            return False
        return not is_named(name, data) or self._store.keep(name, data.data, may_evict=False)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
