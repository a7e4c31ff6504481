"""An engine in a thread of this process: the whole path, HTTP to logits, under one debugger.

For tests and trials. A server for users runs its engine in a process of its own, because Python
threads beside the engine's loop slow it down many times over.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from api.engines.client import refuse_unless_ready
from api.engines.router import OutputRouter
from dllama.engine.outputs import EngineInterrupted
from dllama.errors import ClusterError, DllamaError
from dllama.requests import EngineState, Output, SessionCall, SessionReply, Submit

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_OPEN = 1024
IDLE_S = 0.2  # how often an engine without work gets to look after its peers


class SteppedEngine(Protocol):
    """What dllama.engine.engine.Engine offers to whoever drives it; used by one thread only.

    `submit` raises nothing: a refusal is an Output. `step` and `idle` raise EngineInterrupted.
    """

    def submit(self, submit: Submit) -> None: ...

    def abort(self, request_id: str) -> None: ...

    def has_work(self) -> bool: ...

    def step(self) -> list[Output]: ...

    def idle(self) -> None: ...

    def recover(self) -> None: ...

    def stats(self) -> dict[str, object]: ...

    def session(self, call: SessionCall) -> SessionReply: ...


class InProcessEngineClient:
    """Drives an engine in a thread of its own, one step after the other."""

    def __init__(self, engine: SteppedEngine, *, max_open: int = MAX_OPEN) -> None:
        self._engine = engine
        self._router = OutputRouter(max_open)
        self._state = EngineState("loading")
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._replies: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_lost = False  # the engine's thread alone looks at it

    @property
    def state(self) -> EngineState:
        return self._state

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._state = EngineState("ready", progress=1.0)

    async def close(self) -> None:
        self._lose("The server is stopping.")
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def submit(self, submit: Submit) -> AsyncIterator[Output]:
        refuse_unless_ready(self._state)
        stream = self._router.open(submit.id)
        self._inbox.put(partial(self._engine.submit, submit))
        return stream

    def abort(self, request_id: str) -> None:
        if self._router.close(request_id):
            self._inbox.put(partial(self._engine.abort, request_id))

    async def stats(self) -> dict[str, object]:
        if self._thread is None or self._state.state == "failed":
            raise ClusterError(f"The engine is not running: {self._state.detail or 'closed'}.")
        return await self._ask(self._engine.stats)

    async def session(self, call: SessionCall) -> SessionReply:
        refuse_unless_ready(self._state)
        return await self._ask(partial(self._engine.session, call))

    async def _ask(self, question: Callable[[], T]) -> T:
        """What the engine's thread answers; ClusterError if it does not come to that."""
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._replies.add(reply)
        self._inbox.put(lambda: self._post(partial(settle, reply, question())))
        try:
            return await reply
        finally:
            self._replies.discard(reply)

    def engine_died(self, reason: str, *, is_restarting: bool = False) -> None:
        self._state = EngineState("loading" if is_restarting else "failed", detail=reason)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        self._router.fail_all(reason)
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(ClusterError(reason))

    # Everything below runs in the engine's thread.

    def _run(self) -> None:
        try:
            while self._take_inbox(wait=self._is_lost or not self._engine.has_work()):
                try:
                    self._turn()
                except EngineInterrupted as lost:
                    self._is_lost = True
                    self._set_state(EngineState("recovering", detail=str(lost)))
                    self._post(partial(self._router.deliver, lost.outputs))
        except Exception as error:
            log.exception("the engine's thread has ended")
            reason = str(error) if isinstance(error, DllamaError) else repr(error)
            self._post(partial(self.engine_died, f"The engine has failed: {reason}"))

    def _turn(self) -> None:
        """What there is to do now: a step, a try to recover, or a look after the peers. Raises
        EngineInterrupted."""
        if self._is_lost:
            self._try_to_recover()
        if self._engine.has_work():
            self._post(partial(self._router.deliver, self._engine.step()))
        else:
            self._engine.idle()

    def _try_to_recover(self) -> None:
        try:
            self._engine.recover()
        except ClusterError as error:
            self._set_state(EngineState("recovering", detail=str(error)))
        else:
            self._is_lost = False
            self._set_state(EngineState("ready", progress=1.0))

    def _set_state(self, state: EngineState) -> None:
        def change() -> None:
            self._state = state

        self._post(change)

    def _take_inbox(self, *, wait: bool) -> bool:
        """Does all that was asked, waiting a little for the first; False when asked to end."""
        try:
            task = self._inbox.get(timeout=IDLE_S) if wait else self._inbox.get_nowait()
            while task is not None:
                task()
                task = self._inbox.get_nowait()
        except queue.Empty:
            return True
        return False

    def _post(self, call: Callable[[], None]) -> None:
        assert self._loop is not None, "the thread starts after the loop is known"
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop has closed; nobody waits any more
            log.debug("an output came after the event loop had closed")


def settle(reply: asyncio.Future[T], answer: T) -> None:
    if not reply.done():  # the one who asked may have given up
        reply.set_result(answer)
