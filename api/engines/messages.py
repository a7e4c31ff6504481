"""The part that the clients of an engine share: requests become messages, messages become answers.
Lives on the event loop alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace

from api.engines.client import refuse_unless_ready
from api.engines.router import OutputRouter
from dllama.errors import ClusterError, DllamaError, EngineBusy, ProtocolError
from dllama.requests import (
    Abort,
    EngineState,
    Output,
    SessionCall,
    SessionReply,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    ToEngine,
)

log = logging.getLogger(__name__)

MAX_OPEN = 1024  # sequences running or waiting in one engine
LAST_STATS_S = 2.0  # for the figures of an engine that goes to sleep


class MessageClient(ABC):
    """An EngineClient that sends ToEngine messages by `_send`, and gets FromEngine messages by
    `_receive`."""

    def __init__(self, state: EngineState, max_open: int) -> None:
        self._router = OutputRouter(max_open)
        self._state = state
        self._queries: dict[str, asyncio.Future[StatsReply | SessionReply]] = {}
        self._query_ids = itertools.count()
        self._last_stats: dict[str, object] = {}  # of an engine that sleeps

    @abstractmethod
    def _send(self, message: ToEngine) -> None:
        """Sends a message without waiting. Raises EngineBusy where the engine cannot be reached."""

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def n_open(self) -> int:
        return len(self._router)

    def submit(self, submit: Submit) -> AsyncIterator[Output]:
        refuse_unless_ready(self._state)
        stream = self._router.open(submit.id)
        try:
            self._send(submit)
        except DllamaError:
            self._router.close(submit.id)
            raise
        return stream

    def abort(self, request_id: str) -> None:
        if self._router.close(request_id):
            try:
                self._send(Abort(request_id))
            except EngineBusy:
                log.warning("abort of %s could not be sent: the engine is gone", request_id)

    async def stats(self) -> dict[str, object]:
        is_sleeping = self._state.state == "sleeping"
        return self._last_stats if is_sleeping and self._last_stats else await self._ask_stats()

    async def _ask_stats(self) -> dict[str, object]:
        try:
            reply = await self._ask(StatsQuery(f"stats-{next(self._query_ids)}"))
        except EngineBusy as error:
            raise ClusterError(str(error)) from error
        assert isinstance(reply, StatsReply)
        return reply.stats

    async def session(self, call: SessionCall) -> SessionReply:
        refuse_unless_ready(self._state)
        reply = await self._ask(replace(call, id=f"session-{next(self._query_ids)}"))
        assert isinstance(reply, SessionReply)
        return replace(reply, id=call.id)

    def engine_died(self, reason: str, *, is_restarting: bool = False) -> None:
        self._state = EngineState("loading" if is_restarting else "failed", detail=reason)
        self._lose(reason)

    def engine_sleeps(self) -> None:
        """Called by the supervisor before it ends an engine without work, and when one cannot be
        woken."""
        self._state = EngineState("sleeping")

    async def keep_figures(self) -> None:
        """Called before an engine that sleeps is ended: its last figures are those of `stats` from
        now on."""
        self._last_stats = {}
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(LAST_STATS_S):
                self._last_stats = await self._ask_stats()

    def engine_wakes(self) -> None:
        """Called by the supervisor when it starts an engine that slept."""
        self._state = EngineState("loading", detail="the model slept and is loaded again")

    async def _ask(self, query: StatsQuery | SessionCall) -> StatsReply | SessionReply:
        """The engine's reply to a query with an id of its own. Raises EngineBusy, ClusterError."""
        reply: asyncio.Future[StatsReply | SessionReply]
        reply = asyncio.get_running_loop().create_future()
        self._queries[query.id] = reply
        try:
            self._send(query)
            return await reply
        finally:
            del self._queries[query.id]

    def _lose(self, reason: str) -> None:
        """Ends every sequence and query with ClusterError."""
        self._router.fail_all(reason)
        for reply in self._queries.values():
            if not reply.done():
                reply.set_exception(ClusterError(reason))

    def _receive(self, message: object) -> None:
        """Handles a message of the engine. Raises ProtocolError for any other."""
        if isinstance(message, StepDone):
            self._router.deliver(message.outputs)
        elif isinstance(message, EngineState):
            self._state = message
            if message.state == "failed":
                self._lose(message.detail or "The engine of this model has failed.")
        elif isinstance(message, StatsReply | SessionReply):
            reply = self._queries.get(message.id)
            if reply is not None and not reply.done():
                reply.set_result(message)
        else:
            raise ProtocolError(f"An engine does not send {type(message).__name__}.")
