"""The feed of weights to the ranks: the pieces that a rank wants are cut, chunked and sent against
credit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.wire.messages import Chunk
from dllama.errors import ProtocolError
from dllama.sharding.pieces import Piece, SizedPiece, read_piece
from dllama.weight_source import WeightSource

CHUNK_BYTES = 1 << 20  # heartbeats pass between chunks: below a second even at 10 Mbit/s
WINDOW = 16  # chunks in flight to a rank: 16 MiB keep 1 Gbit/s busy for 130 ms
REPORT_S = 0.1


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """The bytes of weights that a rank has: those it `found` on its disk and those that it has
    taken in; `bytes_per_s` is the mean of the latter since the start. `n_again` pieces were
    asked for late: a disk had them and they were damaged, or did not come from there."""

    rank: int
    found_bytes: int
    sent_bytes: int
    total_bytes: int
    bytes_per_s: float
    n_again: int


class RankFeed:
    """Makes chunks of the pieces that one rank wants out of `pieces`, while it has credit. At most
    `window` chunks are in flight, of `chunk_bytes` each."""

    def __init__(
        self,
        source: WeightSource,
        pieces: Sequence[SizedPiece],
        *,
        window: int = WINDOW,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._source = source
        self._window, self._chunk_bytes = window, chunk_bytes
        self._pieces = pieces
        self.total_bytes = sum(sized.n_bytes for sized in pieces)
        self.found_bytes = 0  # that the rank did not ask for; 0 before it has asked
        self.sent_bytes = 0  # taken in by the rank
        self.n_again = 0  # pieces that it asked for later than at first
        self._queue: deque[int] = deque()  # pieces that the rank wants
        self._has_asked = False
        self._chunks: Iterator[Chunk] = iter(())
        self._in_flight: list[int] = []  # sizes, oldest first

    @property
    def pieces(self) -> list[Piece]:
        """The names of the pieces, by number."""
        return [sized.piece for sized in self._pieces]

    @property
    def is_done(self) -> bool:
        """Whether the rank has asked and has all that it asked for. It may ask again."""
        return self._has_asked and not self._is_sending

    @property
    def _is_sending(self) -> bool:
        return bool(self._in_flight or self._queue)

    def want(self, numbers: Sequence[int]) -> None:
        """Records that the rank wants pieces. What it asks for later than at first comes next; to
        ask for none then means that it takes no more. Raises ProtocolError."""
        if not all(0 <= number < len(self._pieces) for number in numbers):
            raise ProtocolError("a rank asked for pieces of weights of which it holds no part")
        wanted_bytes = sum(self._pieces[number].n_bytes for number in numbers)
        if self._has_asked:
            if not numbers:
                self._queue.clear()
            self._queue.extendleft(reversed(numbers))
            self.n_again += len(numbers)
            self.found_bytes = max(0, self.found_bytes - wanted_bytes)
        else:
            self._queue.extend(numbers)
            self.found_bytes = self.total_bytes - wanted_bytes
        self._has_asked = True

    def next_chunks(self) -> Iterator[Chunk]:
        """Yields chunks until the window is full or all that is wanted is sent."""
        while len(self._in_flight) < self._window:
            chunk = next(self._chunks, None)
            if chunk is not None:
                self._in_flight.append(chunk.data.size)
                yield chunk
            elif self._queue:
                self._chunks = self._chunks_of(self._queue.popleft())
            else:
                return

    def credit(self, n_chunks: int) -> None:
        """Records that the rank took in its oldest `n_chunks` chunks. Raises ProtocolError."""
        if not 0 < n_chunks <= len(self._in_flight):
            raise ProtocolError(
                f"a rank took in {n_chunks} chunks of weights with {len(self._in_flight)} in flight"
            )
        self.sent_bytes += sum(self._in_flight[:n_chunks])
        del self._in_flight[:n_chunks]

    def _chunks_of(self, number: int) -> Iterator[Chunk]:
        flat = np.ascontiguousarray(read_piece(self._source, self._pieces[number])).reshape(-1)
        for offset in range(0, len(flat), self._chunk_bytes):
            yield Chunk(number, offset, flat[offset : offset + self._chunk_bytes])
        tensor = self._pieces[number].piece.tensor
        if not self._queue or self._pieces[self._queue[0]].piece.tensor != tensor:
            self._source.release(tensor)


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

    def pump(self) -> None:
        """Sends the chunks that the ranks have credit for."""
        for rank, feed in self._feeds.items():
            for chunk in feed.next_chunks():
                self._send(rank, chunk)

    def want(self, rank: int, numbers: Sequence[int]) -> None:
        """Records that a rank asked for pieces. Raises ProtocolError."""
        self._feeds[rank].want(numbers)
        self._report(rank)

    def credit(self, rank: int, n_chunks: int) -> None:
        """Records that a rank took in chunks. Raises ProtocolError."""
        self._feeds[rank].credit(n_chunks)
        self._report(rank)

    def n_again(self, rank: int) -> int:
        """Returns how many pieces a rank has asked for later than at first."""
        return self._feeds[rank].n_again

    def _report(self, rank: int) -> None:
        feed, now = self._feeds[rank], time.monotonic()
        if self._on_progress and (feed.is_done or now - self._reported[rank] >= REPORT_S):
            self._reported[rank] = now
            speed = feed.sent_bytes / max(now - self._started, 1e-9)
            self._on_progress(
                FeedProgress(
                    rank, feed.found_bytes, feed.sent_bytes, feed.total_bytes, speed, feed.n_again
                )
            )
