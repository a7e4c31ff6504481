"""An engine in a thread of this process: the whole path, HTTP to logits, under one debugger.

For tests and trials. A server for users runs its engine in a process of its own, because Python
threads beside the engine's loop slow it down many times over.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable

from api.engines.messages import MAX_OPEN, MessageClient
from dllama.engine.loop import DrivenEngine, EngineLoop, TransportClosed
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S
from dllama.errors import EngineBusy
from dllama.requests import EngineState, FromEngine, ToEngine

log = logging.getLogger(__name__)


class InProcessEngineClient(MessageClient):
    """Runs an EngineLoop in a thread of its own."""

    def __init__(
        self,
        engine: DrivenEngine,
        *,
        max_open: int = MAX_OPEN,
        max_recover_s: float = DEFAULT_MAX_RECOVER_S,
    ) -> None:
        super().__init__(EngineState("loading"), max_open, max_recover_s=max_recover_s)
        self._engine = engine
        self._transport: QueueTransport | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Starts the thread; returns when the engine is ready."""
        is_ready = asyncio.Event()

        def receive(message: FromEngine) -> None:
            self._receive(message)
            if isinstance(message, EngineState) and message.state != "loading":
                is_ready.set()

        transport = QueueTransport(asyncio.get_running_loop(), receive)
        loop = EngineLoop(transport, time.monotonic, max_recover_s=self._max_recover_s)
        self._transport = transport
        self._thread = threading.Thread(
            target=loop.run, args=(lambda report: self._engine,), name="engine", daemon=True
        )
        self._thread.start()
        await is_ready.wait()

    async def close(self) -> None:
        self._lose("The server is stopping.")
        if self._thread is not None and self._transport is not None:
            self._transport.inbox.put(None)
            await asyncio.to_thread(self._thread.join)
        self._thread = self._transport = None

    def _send(self, message: ToEngine) -> None:
        if self._transport is None or self._state.state == "failed":
            raise EngineBusy(f"The engine is not running: {self._state.detail or 'closed'}.")
        self._transport.inbox.put(message)


class QueueTransport:
    """The Transport of an engine in a thread: a queue one way, the event loop the other."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: Callable[[FromEngine], None]
    ) -> None:
        """`receive` is called on the event loop with each message of the engine."""
        self.inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()  # None: closed
        self._loop, self._receive = loop, receive
        self._is_closed = False

    @property
    def is_behind(self) -> bool:
        return False

    def receive(self, timeout_s: float) -> list[ToEngine]:
        if self._is_closed:
            raise TransportClosed
        messages: list[ToEngine] = []
        try:
            message = self.inbox.get(timeout=timeout_s) if timeout_s else self.inbox.get_nowait()
            while message is not None:
                messages.append(message)
                message = self.inbox.get_nowait()
        except queue.Empty:
            return messages
        self._is_closed = True
        return messages

    def send(self, message: FromEngine) -> None:
        try:
            self._loop.call_soon_threadsafe(self._receive, message)
        except RuntimeError:  # the event loop has closed: nobody waits for the message
            log.debug("a message came after the event loop had closed")

    def flush(self, timeout_s: float) -> None:
        """Does nothing: messages never wait."""
