"""The engine process's loop: messages in, steps, messages out, in one Python thread.

It knows the engine and one socket. It writes nothing that its reader does not take: while the
reader is behind by a socket's high-water mark, no step is run and no message is read, so that
neither side grows and nothing is lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable

import zmq

from cluster.wire.engine_messages import MAX_MESSAGE_BYTES, decode_message, encode_message
from dllama.engine.engine import Engine, EngineInterrupted
from dllama.errors import ClusterError, ConfigError, DllamaError, ProtocolError
from dllama.requests import (
    Abort,
    EngineState,
    FromEngine,
    Output,
    SessionCall,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
)

log = logging.getLogger(__name__)

HIGH_WATER = 1_000  # messages that wait in the socket for a slow reader; a step makes one
LINGER_MS = 1_000  # for the last words of an engine that fails
IDLE_S = 0.1  # how often an engine without work looks after its nodes
FIRST_PAUSE_S = 0.5  # before the first try to bring the nodes back
MAX_PAUSE_S = 3.0
PAUSE_GROWTH = 1.6
PROGRESS_S = 0.1  # no more often than this is progress told
MAX_DRAINED = 1_024  # messages read between two steps, so that a flood cannot stop the steps

Progress = Callable[[float, str], None]
"""Tells how far loading is: a share from 0 to 1, and a line of text."""


class ParentGone(Exception):
    """The process that wanted this engine has ended; so does the engine."""


class EngineServer:
    """Serves one engine to one client, over one DEALER socket, a message a frame.

    `engine` is an engine, which stays the caller's to close, or a function that loads one while
    it reports progress; that one is closed at the end. `bind` says which side owns the endpoint.
    `parent_fd` is the reading end of a pipe (or stdin) that the parent holds open for as long as
    it wants the engine: its end ends the loop.
    """

    def __init__(
        self,
        engine: Engine | Callable[[Progress], Engine],
        endpoint: str,
        *,
        bind: bool = True,
        parent_fd: int | None = None,
        high_water: int = HIGH_WATER,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._bind = bind
        self._parent_fd = parent_fd
        self._high_water = high_water
        self._outbox: deque[FromEngine] = deque()  # what the socket had no room for
        self._progress_told_s = 0.0

    def run(self) -> int:
        """Serves until the parent is gone (returns 0) or the engine has failed for good
        (returns 1, after the client and the log were told why). Raises ConfigError where the
        endpoint cannot be had."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        try:
            self._socket = self._open(context)
            try:
                return self._run()
            finally:
                self._socket.close()
        finally:
            context.term()

    def _open(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        made = context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, LINGER_MS)
        made.setsockopt(zmq.SNDHWM, self._high_water)
        made.setsockopt(zmq.RCVHWM, HIGH_WATER)
        made.setsockopt(zmq.IMMEDIATE, 1)
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

    def _run(self) -> int:
        engine = None
        try:
            self._post(EngineState("loading"))
            engine = self._engine if isinstance(self._engine, Engine) else self._load(self._engine)
            self._post(EngineState("ready", progress=1.0))
            self._serve(engine)
        except ParentGone:
            log.info("the server is gone; the engine ends")
            return 0
        except DllamaError as error:
            log.info("the engine has failed: %s", error)  # the server says it aloud
            self._fail(str(error))
        except Exception as error:
            log.exception("the engine has failed")
            self._fail(f"the engine has failed: {error!r}; its log tells more, load the model anew")
        finally:
            if engine is not None and engine is not self._engine:
                engine.close()
        return 1

    def _load(self, load: Callable[[Progress], Engine]) -> Engine:
        def report(progress: float, detail: str) -> None:
            now_s = time.monotonic()
            if now_s - self._progress_told_s >= PROGRESS_S:
                self._progress_told_s = now_s
                self._post(EngineState("loading", progress, detail))
                self._wait(0.0)

        return load(report)

    def _serve(self, engine: Engine) -> None:
        while True:
            try:
                self._attend(engine, 0.0 if self._may_step(engine) else IDLE_S)
                if self._may_step(engine):
                    self._deliver(engine.step())
                else:
                    engine.idle()
            except EngineInterrupted as lost:
                self._recover(engine, lost)

    def _may_step(self, engine: Engine) -> bool:
        return not self._outbox and engine.has_work()

    def _recover(self, engine: Engine, lost: EngineInterrupted) -> None:
        """Tries until the nodes are back; refuses requests and answers queries meanwhile."""
        log.warning("a node is lost: %s", lost)
        self._deliver(lost.outputs)
        self._post(EngineState("recovering", detail=str(lost)))
        pause_s = FIRST_PAUSE_S
        while True:
            self._refuse_for(engine, pause_s)
            try:
                engine.recover()
            except ClusterError as error:
                log.warning("the nodes are not back yet: %s", error)
                self._post(EngineState("recovering", detail=str(error)))
                pause_s = min(pause_s * PAUSE_GROWTH, MAX_PAUSE_S)
            else:
                log.info("the nodes are back")
                self._post(EngineState("ready", progress=1.0))
                return

    def _refuse_for(self, engine: Engine, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0.0:
            self._attend(engine, min(left_s, IDLE_S))
            self._deliver(engine.step())  # runs none, but brings what was refused

    def _attend(self, engine: Engine, timeout_s: float) -> None:
        """Handles what has come, and waits for the first message if there is none."""
        if not self._wait(timeout_s):
            return
        for _ in range(MAX_DRAINED):
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._handle(engine, data)
            except ProtocolError as error:
                log.warning("a message of the server was dropped: %s", error)

    def _handle(self, engine: Engine, data: bytes) -> None:
        message = decode_message(data)
        if isinstance(message, Submit):
            engine.submit(message)
        elif isinstance(message, Abort):
            engine.abort(message.id)
        elif isinstance(message, SessionCall):
            self._post(engine.session(message))
        elif isinstance(message, StatsQuery):
            self._post(StatsReply(message.id, engine.stats()))
        else:
            raise ProtocolError(
                f"a server sent a {type(message).__name__}, which only engines send"
            )

    def _wait(self, timeout_s: float) -> bool:
        """Waits for a message, or for room to write if there is a backlog, which then goes out.
        True where there may be messages to read now. Raises ParentGone."""
        poller, parent = zmq.Poller(), self._parent_fd
        poller.register(self._socket, zmq.POLLOUT if self._outbox else zmq.POLLIN)
        if parent is not None:
            poller.register(parent, zmq.POLLIN)
        ready = dict(poller.poll(round(timeout_s * 1e3)))
        if parent is not None and parent in ready and not os.read(parent, 4096):
            raise ParentGone
        if not self._outbox:
            return self._socket in ready
        self._flush()
        return not self._outbox

    def _deliver(self, outputs: list[Output]) -> None:
        if outputs:
            self._post(StepDone(outputs))

    def _post(self, message: FromEngine) -> None:
        """Sends a message, or keeps it until there is room. Of states only the last is kept."""
        is_state = isinstance(message, EngineState)
        if is_state and self._outbox and isinstance(self._outbox[-1], EngineState):
            self._outbox.pop()
        self._outbox.append(message)
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            try:
                self._socket.send(self._packed(self._outbox[0]), zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outbox.popleft()

    @staticmethod
    def _packed(message: FromEngine) -> bytes:
        try:
            return encode_message(message)
        except ProtocolError as error:
            if not isinstance(message, StatsReply):
                raise
            log.error("statistics cannot be sent: %s", error)
            return encode_message(StatsReply(message.id, {"error": str(error)}))

    def _fail(self, detail: str) -> None:
        """The last message of this engine, if anybody reads it in time."""
        self._post(EngineState("failed", detail=detail))
        until_s = time.monotonic() + LINGER_MS * 1e-3
        try:
            while self._outbox and time.monotonic() < until_s:
                self._wait(IDLE_S)
        except ParentGone:
            log.info("the server is gone; the engine ends")
