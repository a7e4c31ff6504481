"""An engine over ZeroMQ: EngineLoop on one DEALER socket, a message a frame, in one thread."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable

import zmq

from cluster.repeats import Repeats
from cluster.wire.engine_messages import MAX_MESSAGE_BYTES, decode_message, encode_message
from dllama.engine.engine import Engine
from dllama.engine.loop import IDLE_S, LINGER_S, EngineLoop, Progress, TransportClosed
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S
from dllama.errors import ConfigError, ProtocolError
from dllama.requests import EngineState, FromEngine, StatsReply, ToEngine

log = logging.getLogger(__name__)

HIGH_WATER = 1_000  # messages that wait in the socket for a slow reader; a step makes one
RECONNECT_MS = 10  # the server may listen a moment after the engine wants to connect
MAX_DRAINED = 1_024  # messages read between two steps, so that a flood cannot stop the steps


class EngineServer:
    """Serves one engine to one client.

    `engine` is an engine, which stays the caller's to close, or a function that loads one while
    it reports progress; that one is closed at the end. `bind` says which side owns the endpoint.
    `parent_fd` is the reading end of a pipe (or stdin) that the parent holds open as long as it
    wants the engine: its end ends the loop.
    """

    def __init__(
        self,
        engine: Engine | Callable[[Progress], Engine],
        endpoint: str,
        *,
        bind: bool = True,
        parent_fd: int | None = None,
        high_water: int = HIGH_WATER,
        max_recover_s: float = DEFAULT_MAX_RECOVER_S,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._bind = bind
        self._parent_fd = parent_fd
        self._high_water = high_water
        self._max_recover_s = max_recover_s

    def run(self) -> int:
        """Serves until the parent is gone (returns 0) or the engine has failed for good
        (returns 1, after the client and the log were told why). Raises ConfigError where the
        endpoint cannot be had."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        try:
            socket = self._open(context)
            try:
                return self._serve(SocketTransport(socket, self._parent_fd))
            finally:
                socket.close()
        finally:
            context.term()

    def _open(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        made = context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, round(LINGER_S * 1e3))
        made.setsockopt(zmq.SNDHWM, self._high_water)
        made.setsockopt(zmq.RCVHWM, HIGH_WATER)
        made.setsockopt(zmq.IMMEDIATE, 1)
        made.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        made.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            (made.bind if self._bind else made.connect)(self._endpoint)
        except zmq.ZMQError as error:
            made.close()
            raise ConfigError(
                f"the engine's endpoint {self._endpoint} cannot be opened: {error}; use "
                "ipc:// with a path of at most 100 characters in a directory that can be written"
            ) from error
        return made

    def _serve(self, transport: SocketTransport) -> int:
        given, loaded = self._engine, []

        def load(report: Progress) -> Engine:
            if isinstance(given, Engine):
                return given
            loaded.append(given(report))
            return loaded[0]

        try:
            loop = EngineLoop(transport, time.monotonic, max_recover_s=self._max_recover_s)
            return 0 if loop.run(load) else 1
        finally:
            for engine in loaded:
                engine.close()


class SocketTransport:
    """The Transport of an engine process. Messages that the socket has no room for wait in an
    outbox; while there are any, nothing is read."""

    def __init__(self, socket: zmq.Socket[bytes], parent_fd: int | None) -> None:
        self._socket, self._parent_fd = socket, parent_fd
        self._outbox: deque[FromEngine] = deque()
        self._repeats = Repeats()

    @property
    def is_behind(self) -> bool:
        return bool(self._outbox)

    def receive(self, timeout_s: float) -> list[ToEngine]:
        """Drops, with a line in the log, what is no message to an engine."""
        messages: list[ToEngine] = []
        if not self._wait(timeout_s):
            return messages
        for _ in range(MAX_DRAINED):
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                messages.append(_to_engine(data))
            except ProtocolError as error:
                if self._repeats.is_first("the server", "a bad message", time.monotonic()):
                    log.warning("a message of the server was dropped: %s", error)
        for line in self._repeats.due(time.monotonic()):
            log.warning("%s", line)
        return messages

    def send(self, message: FromEngine) -> None:
        """Of states that wait only the last is kept."""
        is_state = isinstance(message, EngineState)
        if is_state and self._outbox and isinstance(self._outbox[-1], EngineState):
            self._outbox.pop()
        self._outbox.append(message)
        self._send_waiting()

    def flush(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        self._wait(0.0)
        while self._outbox and (left_s := until_s - time.monotonic()) > 0.0:
            self._wait(min(left_s, IDLE_S))

    def _wait(self, timeout_s: float) -> bool:
        """Waits for a message, or for room to write if messages wait, which are then sent. True
        where there may be messages to read now. Raises TransportClosed."""
        poller, parent = zmq.Poller(), self._parent_fd
        poller.register(self._socket, zmq.POLLOUT if self._outbox else zmq.POLLIN)
        if parent is not None:
            poller.register(parent, zmq.POLLIN)
        ready = dict(poller.poll(round(timeout_s * 1e3)))
        if parent is not None and parent in ready and not os.read(parent, 4096):
            raise TransportClosed
        if not self._outbox:
            return self._socket in ready
        self._send_waiting()
        return not self._outbox

    def _send_waiting(self) -> None:
        while self._outbox:
            try:
                self._socket.send(_packed(self._outbox[0]), zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outbox.popleft()


def _to_engine(data: bytes) -> ToEngine:
    message = decode_message(data)
    if not isinstance(message, ToEngine):
        raise ProtocolError(f"a server sent a {type(message).__name__}, which only engines send")
    return message


def _packed(message: FromEngine) -> bytes:
    """The bytes of a message; statistics that cannot be sent become an error in their place."""
    try:
        return encode_message(message)
    except ProtocolError as error:
        if not isinstance(message, StatsReply):
            raise
        log.error("statistics cannot be sent: %s", error)
        return encode_message(StatsReply(message.id, {"error": str(error)}))
