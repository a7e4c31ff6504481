"""A streamed answer, and its two seams: the writers, one for each API, make bytes of the same
events, and a sink takes the bytes."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from api.answers.events import Event
from api.errors import ApiError, api_error, unforeseen
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class StreamForm:
    """The form of a stream: its content type, and the bytes that show that it lives while there is
    nothing to tell (b"" where readers could not skip them)."""

    content_type: str
    ping: bytes


SSE = StreamForm("text/event-stream; charset=utf-8", b":\n\n")
NDJSON = StreamForm("application/x-ndjson", b"")  # Ollama's: a JSON object on each line


class ReplyWriter(Protocol):
    """Writes one answer in the words of one API, whole or event by event."""

    @property
    def id(self) -> str: ...

    def whole(self, events: Sequence[Event]) -> object:
        """Returns the JSON of a complete answer."""
        ...

    def streamed(self, event: Event) -> bytes:
        """Returns the part of the stream for an event, b"" for none."""
        ...

    def failed(self, error: ApiError) -> bytes:
        """Returns the part of the stream that says why the answer breaks off."""
        ...

    def ended(self) -> bytes:
        """Returns the end of a stream, also of one that has failed: readers wait for it."""
        ...


def data_event(data: object) -> bytes:
    """Returns a server-sent event without a name."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def named_event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


class ReaderGone(Exception):
    """Raised when the client has left, or has read nothing for too long."""


class StreamSink(Protocol):
    """Takes the bytes of one stream. Every method may raise ReaderGone."""

    async def open(self) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None:
        """Ends the stream as complete."""
        ...


class EventStream:
    """Writes events to a sink as they come."""

    def __init__(self, writer: ReplyWriter, sink: StreamSink, form: StreamForm) -> None:
        self._writer = writer
        self._sink = sink
        self._form = form

    async def run(self, sending: Coroutine[None, None, None]) -> None:
        """Opens the stream, sends what `sending` sends, and ends it. Errors become a part of the
        stream; a reader that has left is only logged."""
        try:
            await self._sink.open()  # from here on errors are a part of the stream
        except BaseException:
            sending.close()  # the reader left before the first word
            raise
        try:
            try:
                await sending
            except DllamaError as error:
                await self._sink.write(self._writer.failed(api_error(error)))
            except ReaderGone:
                raise
            except Exception:
                log.exception("stream %s failed", self._writer.id)
                await self._sink.write(self._writer.failed(unforeseen()))
            await self._sink.write(self._writer.ended())
            await self._sink.close()
        except ReaderGone as gone:
            log.info("the reader of %s is gone: %s", self._writer.id, gone)

    async def send(self, events: Sequence[Event]) -> None:
        """Sends the events in the writer's words. Raises ReaderGone."""
        streamed = self._writer.streamed
        data = streamed(events[0]) if len(events) == 1 else b"".join(map(streamed, events))
        await self._sink.write(data)

    async def ping(self) -> None:
        """Shows that the stream lives."""
        await self._sink.write(self._form.ping)
