"""Streams that go on without their client: the bytes of each are kept, so that a client that comes
back reads on where it left. Knows conversations and bytes, no API.

Everything is bounded: see the limits below, which docs/streams.md shows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any, NamedTuple, TypeVar

from api.replies.event_stream import StreamForm
from dllama.errors import DllamaError, EngineBusy

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_STREAM_BYTES = 4 * 1024 * 1024  # the newest of each stream
MAX_LIVE = 64  # streams that are being written
MAX_DONE = 1024  # streams that are complete
MAX_DONE_BYTES = 128 * 1024 * 1024  # of all that are complete
KEPT_S = 300.0  # after a stream is complete
MAX_READ_BYTES = 64 * 1024  # at a time
BUSY_RETRY_S = 5.0


class Conversation(NamedTuple):
    """A conversation as its client names it; `owner` is the API key of that client, "" where the
    server has none: nobody else finds its stream."""

    owner: str
    id: str


@dataclass(eq=False)
class ConversationStream:
    """The bytes of one answer. Of those that ever came, `n_total`, the first `n_dropped` are gone.
    A `StreamSink`: its writer never waits for a reader."""

    conversation: Conversation
    form: StreamForm
    started_at: int  # unix time, s
    completed_at: int = 0  # 0 while it is written
    n_dropped: int = 0
    failure: Exception | None = None  # why nothing was ever written
    forgetting: asyncio.TimerHandle | None = None  # cancelled with it, since it holds the bytes
    _bytes: bytearray = field(default_factory=bytearray)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def n_kept(self) -> int:
        return len(self._bytes)

    @property
    def n_total(self) -> int:
        return self.n_dropped + len(self._bytes)

    @property
    def is_done(self) -> bool:
        return self.completed_at > 0

    async def open(self) -> None:
        """There is nothing to open."""

    async def write(self, data: bytes) -> None:
        self._bytes += data
        n_over = max(0, len(self._bytes) - MAX_STREAM_BYTES)
        del self._bytes[:n_over]
        self.n_dropped += n_over
        self._wake()

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """Ends the stream, complete or not; may be called again."""
        if not self.is_done:
            self.completed_at = int(time())
        self._wake()

    async def read(self, offset: int) -> bytes:
        """Returns bytes from `offset` on, as soon as there are some; b"" at the end. Raises
        OffsetLost if they are gone."""
        while True:
            if offset < self.n_dropped:
                raise OffsetLost(offset, self.n_dropped)
            begin = offset - self.n_dropped
            if begin < len(self._bytes):
                return bytes(self._bytes[begin : begin + MAX_READ_BYTES])
            if self.is_done:
                return b""
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class OffsetLost(Exception):
    """Raised for bytes that a stream does not hold any more; it begins at `first`."""

    def __init__(self, offset: int, first: int) -> None:
        super().__init__(f"byte {offset} is gone; the first that is kept is {first}")
        self.offset, self.first = offset, first


class ConversationEnded(Exception):
    """Raised for an answer that was ended before its stream began."""


class ConversationStreams:
    """The streams of all conversations, one each: a new one ends the one before it."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._streams: dict[Conversation, ConversationStream] = {}  # the oldest first
        self._writing: dict[ConversationStream, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()  # cancelled, and not yet gone
        self._parked: dict[Conversation, asyncio.Future[Any]] = {}

    async def before_begin(self, conversation: Conversation, waiting: Awaitable[T]) -> T:
        """Returns what an answer needs before its stream begins: a model that is loaded. It is
        waited for also when the client leaves. Raises ConversationEnded."""
        self.remove(conversation)
        self._parked[conversation] = parked = asyncio.ensure_future(waiting)
        try:
            while not parked.done():
                with suppress(asyncio.CancelledError):  # the client has left
                    await asyncio.wait([parked])
        finally:
            if self._parked.get(conversation) is parked:
                del self._parked[conversation]
        if parked.cancelled():
            raise ConversationEnded
        return parked.result()

    def is_parked(self, conversation: Conversation) -> bool:
        """Returns whether a stream will begin once its model is loaded."""
        return conversation in self._parked

    def open(
        self,
        conversation: Conversation,
        form: StreamForm,
        write: Callable[[ConversationStream], Coroutine[None, None, None]],
    ) -> ConversationStream:
        """Starts a stream that `write` fills, in a task of its own. Raises EngineBusy if too many
        are being written."""
        self.remove(conversation)
        if len(self._writing) >= MAX_LIVE:
            raise EngineBusy(
                f"{MAX_LIVE} answers are being written that go on without their clients, and this "
                "server takes no more at a time; ask again in a moment.",
                retry_after_s=BUSY_RETRY_S,
            )
        stream = ConversationStream(conversation, form, int(time()))
        self._streams[conversation] = stream
        self._writing[stream] = task = asyncio.create_task(write(stream))
        task.add_done_callback(partial(self._written, stream))
        return stream

    def _written(self, stream: ConversationStream, task: asyncio.Task[None]) -> None:
        """Takes note that a stream ends, also one whose task was cancelled before it began."""
        self._writing.pop(stream, None)
        self._ending.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # the client whose request it was hears it, if it is there
            stream.failure = error
            if not isinstance(error, DllamaError):
                log.error("the stream of %s failed", stream.conversation.id, exc_info=error)
        stream.end()
        if error is not None or self.find(stream.conversation) is not stream:
            self._forget(stream)
            return
        loop = asyncio.get_running_loop()
        stream.forgetting = loop.call_later(self._kept_s, self._forget, stream)
        self._evict()

    def find(self, conversation: Conversation) -> ConversationStream | None:
        return self._streams.get(conversation)

    def of(self, owner: str, ids: Iterable[str]) -> list[ConversationStream]:
        """Returns the streams of these conversations of one owner, and of `ID::MODEL` for each ID:
        clients keep an answer for each model so."""
        wanted = set(ids)
        return [
            stream
            for conversation, stream in self._streams.items()
            if conversation.owner == owner and not wanted.isdisjoint(_names(conversation.id))
        ]

    def remove(self, conversation: Conversation) -> None:
        """Forgets a stream, and ends the answer that fills it; unknown ones are ignored."""
        if parked := self._parked.pop(conversation, None):
            parked.cancel()
        stream = self._streams.get(conversation)
        if stream is None:
            return
        self._forget(stream)
        if stream in self._writing:
            self._end(self._writing.pop(stream))

    async def close(self) -> None:
        """Ends all answers."""
        for parked in self._parked.values():
            parked.cancel()
        for task in self._writing.values():
            self._end(task)
        await asyncio.gather(*self._ending, return_exceptions=True)
        for stream in list(self._streams.values()):
            self._forget(stream)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.cancel()

    def _forget(self, stream: ConversationStream) -> None:
        if stream.forgetting is not None:
            stream.forgetting.cancel()
        if self._streams.get(stream.conversation) is stream:
            del self._streams[stream.conversation]

    def _evict(self) -> None:
        """Forgets complete streams, those that were complete first, until the rest is within the
        limits."""
        done = [stream for stream in self._streams.values() if stream.is_done]
        n_done, n_bytes = len(done), sum(stream.n_kept for stream in done)
        for stream in sorted(done, key=lambda stream: stream.completed_at):
            if n_done <= MAX_DONE and n_bytes <= MAX_DONE_BYTES:
                return
            n_done, n_bytes = n_done - 1, n_bytes - stream.n_kept
            self._forget(stream)


def _names(conversation_id: str) -> Iterator[str]:
    """Yields the ids by which a conversation may be asked for: its own, and each part of it that a
    `::` follows."""
    parts = conversation_id.split("::")
    yield from ("::".join(parts[:n]) for n in range(1, len(parts) + 1))
