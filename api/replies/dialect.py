"""Another API's words for what a chat answer says: the seam between the chat route and the routes
of other makers. A dialect is fed with OpenAI's chat objects and knows no engine and no socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import orjson
from aiohttp import web

from api.answers.sequence import TextSequence
from api.config import ApiConfig
from api.errors import ApiError
from api.replies.event_stream import EventStream
from api.replies.openai import Json


class Event(NamedTuple):
    """One server-sent event: its name, which is in its data too, and its data."""

    name: str
    data: Json


class Dialect(Protocol):
    """Retells one answer, whole or chunk by chunk."""

    def watch(self, sequences: Sequence[TextSequence]) -> None:
        """Hears of the sequences before they start; they know what chat objects do not say."""
        ...

    def whole(self, said: Json) -> Json:
        """The answer that says what a `chat.completion` says."""
        ...

    def events(self, chunk: Json) -> Iterable[Event]:
        """What to send on a `chat.completion.chunk`."""
        ...

    def ending(self) -> Iterable[Event]:
        """What to send after the last chunk."""
        ...

    def failing(self, error: ApiError) -> Iterable[Event]:
        """What to send when the answer breaks off."""
        ...


class DialectStream(EventStream):
    """A stream of named events, without OpenAI's [DONE]."""

    def __init__(self, request: web.Request, config: ApiConfig, dialect: Dialect) -> None:
        super().__init__(request, config)
        self._dialect = dialect
        self._has_failed = False

    async def send(self, event: Json) -> None:
        await self._send_all(self._dialect.events(event))

    async def fail(self, error: ApiError) -> None:
        self._has_failed = True
        await self._send_all(self._dialect.failing(error))

    async def done(self) -> None:
        if not self._has_failed:
            await self._send_all(self._dialect.ending())

    async def _send_all(self, events: Iterable[Event]) -> None:
        data = b"".join(
            b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(body))
            for name, body in events
        )
        if data:
            await self._write(data)
