"""A rank's tensors, put together of pieces: those on its disk, those on other workers' disks, and
those that it asks the root for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from cluster.weights.exchange import PeerPieces
from cluster.weights.inbox import PieceInbox
from cluster.weights.keeping import Keeper, ReadAhead
from cluster.weights.store import WeightStore
from cluster.wire.messages import Chunk, Credit, Load, Loaded, Want
from dllama.qtypes import row_bytes
from dllama.sharding.pieces import Tiling, piece_sizes
from dllama.weight_source import TensorFeed, TensorInfo

log = logging.getLogger(__name__)


class ArrivingTensors:
    """Brings in the pieces of a Load and makes tensors of them, in one buffer that all share.

    `next_chunk` waits for the root, `tell` sends it a message, `beat` is called before each tensor
    and chunk.
    """

    def __init__(
        self,
        load: Load,
        store: WeightStore,
        peers: PeerPieces,
        next_chunk: Callable[[], Chunk],
        tell: Callable[[Want | Credit], None],
        beat: Callable[[], None],
    ) -> None:
        self._load, self._store, self._peers = load, store, peers
        self._next_chunk, self._tell, self._beat = next_chunk, tell, beat
        self._names = [digest.tobytes().hex() for digest in load.digests]
        self._sizes = [
            size
            for info, tiling in zip(load.manifest, load.tilings, strict=True)
            for size in piece_sizes(info, tiling)
        ]
        self._inbox = PieceInbox(self._sizes)
        self._found_bytes = self._fetched_bytes = self._received_bytes = self._n_wrong = 0

    def tensors(self) -> TensorFeed:
        """The tensors as they arrive, each uint8 (rows, row bytes). Raises ProtocolError for a
        chunk that is not wanted."""
        return TensorFeed(self._load.manifest, self._arrays())

    def loaded(self) -> Loaded:
        """What to tell the root once all tensors have been taken."""
        return Loaded(self._found_bytes, self._fetched_bytes, self._received_bytes, self._n_wrong)

    def _arrays(self) -> Iterator[tuple[TensorInfo, np.ndarray]]:
        numbers = range(len(self._names))
        found = [number for number in numbers if self._store.has(self._names[number])]
        self._is_found = np.zeros(len(numbers), bool)
        self._is_found[found] = True
        missing = [number for number in numbers if not self._is_found[number]]
        self._at_peers = self._peers.locate(self._names, self._sizes, missing)
        self._want([number for number in missing if number not in self._at_peers])
        self._ahead = ReadAhead(self._store, self._names, self._sizes, found)
        self._keeper = Keeper(self._store)
        buffer = np.empty(max((info.n_bytes for info in self._load.manifest), default=0), np.uint8)
        numbered = count()
        try:
            for info, tiling in zip(self._load.manifest, self._load.tilings, strict=True):
                self._beat()
                out = buffer[: info.n_bytes].reshape(info.rows, info.row_bytes)
                self._put_together(info, tiling, numbered, out)
                yield info, out
        finally:
            self._ahead.close()
            self._keeper.close()
            self._n_wrong = self._keeper.n_wrong
            if self._store.n_damaged:
                log.warning(
                    "%d pieces of weights on this disk were damaged and were replaced; see whether "
                    "the disk is sound",
                    self._store.n_damaged,
                )

    def _put_together(
        self, info: TensorInfo, tiling: Tiling, numbered: Iterator[int], out: np.ndarray
    ) -> None:
        """Fills a tensor, uint8 (rows, row bytes), from its pieces."""
        n_rows = info.rows // info.n_experts
        for first in range(0, info.rows, n_rows):
            matrix = out[first : first + n_rows]
            for size, part, at in tiling.spans(info.cols if tiling.is_by_cols else n_rows):
                piece = self._piece(next(numbered))
                if tiling.is_by_cols:
                    rows = piece.reshape(n_rows, row_bytes(info.qtype, size))
                    matrix[:, _bytes(info, at)] = rows[:, _bytes(info, part)]
                else:
                    rows = piece.reshape(size, info.row_bytes)
                    matrix[at.start : at.stop] = rows[part.start : part.stop]

    def _piece(self, number: int) -> np.ndarray:
        """Returns a piece, uint8 (n,)."""
        if self._is_found[number]:
            data = self._ahead.take(number)
            if data is not None:
                self._found_bytes += len(data)
                return np.frombuffer(data, np.uint8)
            self._want([number])  # it was damaged, or has gone
        elif number in self._at_peers:
            fetched = self._peers.take(number)
            if fetched is not None:
                self._fetched_bytes += len(fetched)
                self._keeper.keep(self._names[number], fetched)
                return fetched
            self._want([number])
        while (piece := self._inbox.take(number)) is None:
            self._beat()  # where chunks come without a pause, nobody else does
            chunk = self._next_chunk()
            whole = self._inbox.add(chunk)
            self._tell(Credit(1))
            self._received_bytes += len(chunk.data)
            if whole is not None:
                self._keeper.keep(self._names[chunk.piece], whole)
        return piece

    def _want(self, numbers: list[int]) -> None:
        self._inbox.want(numbers)
        self._tell(Want(np.array(numbers, np.int32)))


def _bytes(info: TensorInfo, cols: range) -> slice:
    return slice(row_bytes(info.qtype, cols.start), row_bytes(info.qtype, cols.stop))
