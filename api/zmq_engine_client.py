"""An engine in another process, over ZeroMQ. The only module of the server that knows of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import zmq
import zmq.asyncio

from api.engine_client import refuse_unless_ready
from api.output_router import OutputRouter
from cluster.wire.engine_messages import MAX_MESSAGE_BYTES, decode_message, encode_message
from dllama.errors import ClusterError, ConfigError, DllamaError, EngineBusy, ProtocolError
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
HIGH_WATER = 100_000  # messages; a step sends one, so the loop may sleep through many steps


class ZmqEngineClient:
    """Speaks to one engine process through one DEALER socket.

    `endpoint` is ipc:// (or inproc:// in tests); with `bind` the server owns it and engines
    come and go, as when a supervisor restarts one. Submits are refused until the engine has said
    that it is ready.
    """

    def __init__(self, endpoint: str, *, bind: bool = True, max_open: int = MAX_OPEN) -> None:
        self._endpoint = endpoint
        self._bind = bind
        self._router = OutputRouter(max_open)
        self._state = EngineState("loading", detail="waiting for the engine to start")
        self._queries: dict[str, asyncio.Future[StatsReply | SessionReply]] = {}
        self._query_ids = itertools.count()
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    async def start(self) -> None:
        """Opens the socket; ConfigError if the endpoint cannot be had."""
        self._context = zmq.asyncio.Context(io_threads=1)
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = HIGH_WATER
        socket.immediate = True  # nothing is queued for an engine that is not there
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            if self._bind:
                socket.bind(self._endpoint)
            else:
                socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            raise ConfigError(
                f"The engine's socket {self._endpoint} cannot be opened: {error}."
            ) from error
        self._socket = socket
        self._reader = asyncio.create_task(self._read(socket), name=f"read {self._endpoint}")

    async def close(self) -> None:
        self._lose("The server is stopping.")
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
        self._reader = self._socket = self._context = None

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

    async def _ask(self, query: StatsQuery | SessionCall) -> StatsReply | SessionReply:
        """The engine's reply to a query whose id is nobody else's; EngineBusy, ClusterError."""
        reply: asyncio.Future[StatsReply | SessionReply]
        reply = asyncio.get_running_loop().create_future()
        self._queries[query.id] = reply
        try:
            self._send(query)
            return await reply
        finally:
            del self._queries[query.id]

    def engine_died(self, reason: str, *, is_restarting: bool = False) -> None:
        self._state = EngineState("loading" if is_restarting else "failed", detail=reason)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        self._router.fail_all(reason)
        for reply in self._queries.values():
            if not reply.done():
                reply.set_exception(ClusterError(reason))

    def _send(self, message: ToEngine) -> None:
        """Hands a message to ZeroMQ now or raises EngineBusy; it never waits."""
        if self._socket is None:
            raise EngineBusy("The connection to the engine is closed; restart the server.")
        # With NOBLOCK pyzmq sends before it returns, so the future is done already.
        sent = self._socket.send(encode_message(message), zmq.NOBLOCK)
        assert isinstance(sent, asyncio.Future)
        if sent.done() and sent.exception() is not None:
            raise EngineBusy("The engine cannot be reached now; ask again in a moment.")

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            data = await socket.recv()
            try:
                self._receive(data)
            except ProtocolError as error:
                log.error("a message of the engine was dropped: %s", error)
            except Exception:
                log.exception("a message of the engine could not be handled")

    def _receive(self, data: bytes) -> None:
        message = decode_message(data)
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
