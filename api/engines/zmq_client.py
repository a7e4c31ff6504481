"""An engine in another process, over ZeroMQ. The only module of the server that knows of it."""

from __future__ import annotations

import asyncio
import logging
import time

import zmq
import zmq.asyncio

from api.engines.messages import MAX_OPEN, MessageClient
from cluster.repeats import Repeats
from cluster.wire.engine_messages import MAX_MESSAGE_BYTES, decode_message, encode_message
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S
from dllama.errors import ConfigError, EngineBusy, ProtocolError, RequestError
from dllama.requests import EngineState, ToEngine

log = logging.getLogger(__name__)

HIGH_WATER = 100_000  # messages; a step sends one, so the event loop may sleep through many steps


class ZmqEngineClient(MessageClient):
    """Speaks to one engine process through one DEALER socket.

    `endpoint` is ipc:// (or inproc:// in tests); with `bind` the server owns it and engines
    come and go, as when a supervisor restarts one. Submits are refused until the first engine has
    said that it is ready; sequences of an engine that is gone go on in the next.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool = True,
        max_open: int = MAX_OPEN,
        max_recover_s: float = DEFAULT_MAX_RECOVER_S,
    ) -> None:
        super().__init__(
            EngineState("loading", detail="waiting for the engine to start"),
            max_open,
            is_supervised=True,
            max_recover_s=max_recover_s,
        )
        self._endpoint = endpoint
        self._bind = bind
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._repeats = Repeats()

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

    def _check(self, message: ToEngine) -> None:
        try:
            decode_message(encode_message(message))
        except ProtocolError as error:
            raise RequestError(
                f"The engine does not take this request: {error} Make it smaller."
            ) from error

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
                self._receive(decode_message(data))
            except ProtocolError as error:
                if self._is_news("a message that was dropped"):
                    log.error("a message of the engine was dropped: %s", error)
            except Exception:
                if self._is_news("a message that could not be handled"):
                    log.exception("a message of the engine could not be handled")
            for line in self._repeats.due(time.monotonic()):
                log.error("%s", line)

    def _is_news(self, kind: str) -> bool:
        return self._repeats.is_first("the engine", kind, time.monotonic())
