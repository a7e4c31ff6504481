"""The state that all routes of one server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from api.config import ApiConfig
from api.conversation_streams import ConversationStreams
from api.errors import ApiError
from api.http.listener import SilentConnections
from api.left_out import LeftOut
from api.meter import Meter, RequestCounts
from api.models.models import Models
from api.response_store import ResponseStore
from api.served_model import ServedModel


@dataclass(slots=True)
class ApiContext:
    """The models and limits of a server, and what it is doing right now."""

    models: Models
    config: ApiConfig
    started_at: float = field(default_factory=time.time)
    requests: RequestCounts = field(default_factory=RequestCounts)
    meters: dict[str, Meter] = field(default_factory=dict)  # by the ids of their models
    responses: ResponseStore = field(default_factory=ResponseStore)
    streams: ConversationStreams = field(default_factory=ConversationStreams)
    silent: SilentConnections = field(init=False)
    left_out: LeftOut = field(init=False)
    is_stopping: bool = False
    generating: set[asyncio.Task[object]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.silent = SilentConnections(self.config.header_timeout_s)
        self.left_out = LeftOut(is_strict=self.config.strict_fields)

    def stopping(self) -> ApiError:
        """Returns the error for requests that come while the server stops."""
        return ApiError(
            503, "The server is stopping; ask again in a moment.", "unavailable_error",
            retry_after_s=5.0,
        )  # fmt: skip

    def meter_of(self, model: ServedModel) -> Meter:
        """Returns the counts of a model, which outlive its engines."""
        return self.meters.setdefault(model.id, Meter())

    def route_of(self, request: web.Request) -> str:
        """Returns the path of a request, less the prefix that all of them have here."""
        return request.path.removeprefix(self.config.prefix) or "/"

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Counts the current task among the open requests; 503 once the server is stopping."""
        if self.is_stopping:
            raise self.stopping()
        self.requests.n_open += 1
        self.requests.n_total += 1
        try:
            with self.waited_for():
                yield
        finally:
            self.requests.n_open -= 1

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Has a server that stops wait for the current task."""
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        self.generating.add(task)
        try:
            yield
        finally:
            self.generating.discard(task)


CONTEXT = web.AppKey("CONTEXT", ApiContext)
