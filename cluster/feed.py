"""The feed of weights to the ranks: tensors are cut, chunked and sent against credit. At most
WINDOW chunks are in flight to a rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.wire.messages import Chunk
from dllama.errors import ProtocolError
from dllama.weight_source import TensorFeed, TensorInfo

CHUNK_BYTES = 1 << 20  # heartbeats pass between chunks: below a second even at 10 Mbit/s
WINDOW = 16  # chunks in flight to a rank: 16 MiB keep 1 Gbit/s busy for 130 ms
REPORT_S = 0.1


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """The bytes of weights that a rank has taken in; `bytes_per_s` is the mean since the start."""

    rank: int
    done_bytes: int
    total_bytes: int
    bytes_per_s: float


class RankFeed:
    """Makes chunks of one rank's tensors while it has credit."""

    def __init__(self, tensors: TensorFeed) -> None:
        self.total_bytes = sum(info.n_bytes for info in tensors.manifest)
        self.done_bytes = 0  # taken in by the rank
        self._chunks = _chunks(iter(tensors))
        self._in_flight: list[int] = []  # sizes, oldest first
        self._is_read = False

    @property
    def is_done(self) -> bool:
        return self._is_read and not self._in_flight

    def next_chunks(self) -> Iterator[Chunk]:
        """Yields chunks until the window is full or everything is sent."""
        while not self._is_read and len(self._in_flight) < WINDOW:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._is_read = True
                return
            self._in_flight.append(chunk.data.size)
            yield chunk

    def credit(self, n_chunks: int) -> None:
        """Records that the rank took in its oldest `n_chunks` chunks. Raises ProtocolError."""
        if not 0 < n_chunks <= len(self._in_flight):
            raise ProtocolError(
                f"a rank took in {n_chunks} chunks of weights with {len(self._in_flight)} in flight"
            )
        self.done_bytes += sum(self._in_flight[:n_chunks])
        del self._in_flight[:n_chunks]


class Feeder:
    """Feeds all ranks from one thread, which calls `pump` between its other work."""

    def __init__(
        self,
        feeds: dict[int, RankFeed],
        send: Callable[[int, Chunk], None],
        on_progress: Callable[[FeedProgress], None] | None,
    ) -> None:
        self._feeds = feeds
        self._send = send
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._reported = dict.fromkeys(feeds, 0.0)

    @property
    def is_done(self) -> bool:
        return all(feed.is_done for feed in self._feeds.values())

    def pump(self) -> None:
        """Sends the chunks that the ranks have credit for."""
        for rank, feed in self._feeds.items():
            for chunk in feed.next_chunks():
                self._send(rank, chunk)

    def credit(self, rank: int, n_chunks: int) -> None:
        feed = self._feeds[rank]
        feed.credit(n_chunks)
        now = time.monotonic()
        if self._on_progress and (feed.is_done or now - self._reported[rank] >= REPORT_S):
            self._reported[rank] = now
            speed = feed.done_bytes / max(now - self._started, 1e-9)
            self._on_progress(FeedProgress(rank, feed.done_bytes, feed.total_bytes, speed))


def received_tensors(
    manifest: Sequence[TensorInfo],
    next_chunk: Callable[[], Chunk],
    give_credit: Callable[[int], None],
) -> TensorFeed:
    """Tensors put together again, each uint8 (rows, row bytes), in a buffer that all share.

    Raises ProtocolError for a chunk that is not the next one.
    """
    return TensorFeed(manifest, _put_together(manifest, next_chunk, give_credit))


def _put_together(
    manifest: Sequence[TensorInfo],
    next_chunk: Callable[[], Chunk],
    give_credit: Callable[[int], None],
) -> Iterator[tuple[TensorInfo, np.ndarray]]:
    buffer = np.empty(max((info.n_bytes for info in manifest), default=0), np.uint8)
    for number, info in enumerate(manifest):
        filled = 0
        while filled < info.n_bytes:
            chunk = next_chunk()
            data = chunk.data
            is_next = chunk.tensor == number and chunk.offset == filled
            if not is_next or not 0 < data.size <= info.n_bytes - filled:
                raise ProtocolError(
                    f"{data.size} bytes for tensor {chunk.tensor} at {chunk.offset} came where "
                    f"{info.name} (number {number}) has {filled} of {info.n_bytes} bytes"
                )
            buffer[filled : filled + data.size] = data
            filled += data.size
            give_credit(1)
        yield info, buffer[: info.n_bytes].reshape(info.rows, info.row_bytes)


def _chunks(tensors: Iterator[tuple[TensorInfo, np.ndarray]]) -> Iterator[Chunk]:
    """Yields chunks of whole rows, so that a cut by columns is copied a chunk at a time."""
    for number, (info, array) in enumerate(tensors):
        rows_per_chunk = max(1, CHUNK_BYTES // info.row_bytes)
        for first in range(0, info.rows, rows_per_chunk):
            piece = np.ascontiguousarray(array[first : first + rows_per_chunk])
            yield Chunk(number, first * info.row_bytes, piece.reshape(-1))
