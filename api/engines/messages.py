"""The part that the clients of an engine share: requests become messages, messages become answers.
Lives on the event loop alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from api.engines.client import Restarts, refuse_unless_ready, refuse_unless_taken
from api.engines.router import OutputRouter
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S
from dllama.errors import ClusterError, DllamaError, EngineBusy, ProtocolError
from dllama.nodes import NodeRow, NodesAction, NodesCall, NodesReply
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

Query = StatsQuery | SessionCall | NodesCall
Reply = StatsReply | SessionReply | NodesReply

MAX_OPEN = 1024  # sequences running or waiting in one engine
LAST_STATS_S = 2.0  # for the figures of an engine that goes to sleep
HELD_CHECK_S = 0.25  # interval of looks at sequences that no engine has
HELD_RETRY_S = 3.0


class MessageClient(ABC):
    """An EngineClient that sends ToEngine messages by `_send`, and gets FromEngine messages by
    `_receive`."""

    def __init__(
        self,
        state: EngineState,
        max_open: int,
        *,
        is_supervised: bool = False,
        max_recover_s: float = DEFAULT_MAX_RECOVER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An engine that `is_supervised` may be followed by another one; sequences wait for that
        for `max_recover_s`."""
        self._router = OutputRouter(max_open)
        self._state = state
        self._is_supervised, self._max_recover_s = is_supervised, max_recover_s
        self._clock = clock
        self._takes = False  # the engine that runs now has said that it takes sequences
        self._was_ready = False  # this engine or one before it
        self._held_since_s: float | None = None  # while sequences wait for an engine
        self._holding: asyncio.Task[None] | None = None
        self._restarts = Restarts()
        self.n_steps = 0  # of all engines, as far as they brought something
        self._queries: dict[str, asyncio.Future[Reply]] = {}
        self._query_ids = itertools.count()
        self._last_stats: dict[str, object] = {}  # of an engine that sleeps
        self.named_nodes: list[NodeRow] = []  # after the last change by hand, the root first

    @abstractmethod
    def _send(self, message: ToEngine) -> None:
        """Sends a message without waiting. Raises EngineBusy where the engine cannot be reached."""

    def _check(self, message: ToEngine) -> None:  # noqa: B027  (nothing to check, where none is read)
        """Raises RequestError for a message that the engine could not read."""

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def n_open(self) -> int:
        return len(self._router)

    @property
    def restarts(self) -> Restarts:
        return self._restarts

    def submit(self, submit: Submit) -> AsyncIterator[Output]:
        refuse_unless_taken(self._state)
        self._check(submit)
        sequence = self._router.open(submit, self._clock())
        if self._held_since_s is None:
            try:
                self._router.send_unsent(self._send, self._clock())
            except EngineBusy:
                if not self._is_supervised:
                    self._router.close(submit.id)
                    raise
                self._hold()  # the supervisor does not know yet that the engine is gone
            except DllamaError:
                self._router.close(submit.id)
                raise
        return sequence.stream

    def abort(self, request_id: str) -> None:
        engine_id = self._router.close(request_id)
        if engine_id is None:
            return
        try:
            self._send(Abort(engine_id))
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

    async def nodes(self, call: NodesCall) -> NodesReply:
        if self._state.state != "recovering":
            refuse_unless_taken(self._state)
        try:
            reply = await self._ask(replace(call, id=f"nodes-{next(self._query_ids)}"))
        except ClusterError as error:
            raise ClusterError(f"{error}{_not_done(call)}") from error
        assert isinstance(reply, NodesReply)
        if reply.error is None and call.action is not NodesAction.LIST:
            self.named_nodes = reply.nodes
        return replace(reply, id=call.id)

    def engine_died(self, reason: str, *, is_restarting: bool = False) -> None:
        self._takes = False
        if not is_restarting:
            is_short = self._state.is_short  # what the engine said before it ended
            self._state = EngineState("failed", detail=reason, is_short=is_short)
            self._lose(reason)
            return
        self._state = EngineState("loading", detail=reason, queues=not self._is_overdue)
        self._fail_queries(reason)
        self._router.engine_gone(reason)
        self._restarts = self._restarts._replace(total=self._restarts.total + 1)
        self._hold()

    # ---- sequences that wait for another engine
    def _hold(self) -> None:
        """Has sequences wait until an engine takes them."""
        if self._held_since_s is None:
            self._held_since_s = self._clock()
        if self._holding is None or self._holding.done():
            self._holding = asyncio.create_task(self._watch_held(), name="hold sequences")

    async def _watch_held(self) -> None:
        """Sends sequences as soon as an engine takes them, and ends those that wait too long."""
        while self._held_since_s is not None:
            await asyncio.sleep(HELD_CHECK_S)
            self._send_held()
            self._router.end_late_ones(self._clock())
            if self._is_overdue:
                self._give_up_held()

    @property
    def _is_overdue(self) -> bool:
        """Whether sequences have waited for an engine as long as they may."""
        since_s = self._held_since_s
        return since_s is not None and self._clock() - since_s >= self._max_recover_s

    def _send_held(self) -> None:
        """Sends the sequences that wait, if the engine takes them."""
        if self._held_since_s is None or not self._takes:
            return
        try:
            self._router.send_unsent(self._send, self._clock())
        except DllamaError as error:
            log.info("sequences wait on: %s", error)
            return
        total, seconds = self._restarts
        self._restarts = Restarts(total, seconds + self._clock() - self._held_since_s)
        self._held_since_s = None

    def _give_up_held(self) -> None:
        """Ends the sequences that wait. New ones are refused until an engine is ready."""
        if self._router.n_unsent:
            log.error("no engine has come for %g s; answers end", self._max_recover_s)
        detail = self._state.detail
        self._state = replace(self._state, queues=False)
        self._router.fail_unsent(
            f"{detail or 'The engine is gone.'} The answer ends here because no other one could "
            f"take over within {self._max_recover_s:.0f} s (--max-recover-s): send the request "
            "again later, it is still tried.",
            HELD_RETRY_S,
        )

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

    async def _ask(self, query: Query) -> Reply:
        """The engine's reply to a query with an id of its own. Raises EngineBusy, ClusterError, and
        RequestError as `_check`."""
        self._check(query)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queries[query.id] = reply
        try:
            self._send(query)
            return await reply
        finally:
            del self._queries[query.id]

    def _lose(self, reason: str) -> None:
        """Ends every sequence and query with ClusterError."""
        self._held_since_s = None
        if self._holding is not None:
            self._holding.cancel()
        self._router.fail_all(reason)
        self._fail_queries(reason)

    def _fail_queries(self, reason: str) -> None:
        for reply in self._queries.values():
            if not reply.done():
                reply.set_exception(ClusterError(reason))

    def _receive(self, message: object) -> None:
        """Handles a message of the engine. Raises ProtocolError for any other."""
        if isinstance(message, StepDone):
            self.n_steps += 1
            self._router.deliver(message.outputs)
        elif isinstance(message, EngineState):
            self._note_state(message)
        elif isinstance(message, Reply):
            reply = self._queries.get(message.id)
            if reply is not None and not reply.done():
                reply.set_result(message)
        else:
            raise ProtocolError(f"An engine does not send {type(message).__name__}.")

    def _note_state(self, state: EngineState) -> None:
        self._takes = state.state == "ready" or state.queues
        self._was_ready |= state.state == "ready"
        self._send_held()
        is_held = self._held_since_s is not None and self._state.queues
        if state.state == "failed" and self._is_supervised and self._was_ready:
            self._hold()  # its process ends, and the supervisor starts another
            is_held = not self._is_overdue
        self._state = replace(state, queues=state.queues or is_held)
        if state.state == "failed" and not self._is_supervised:
            self._lose(state.detail or "The engine of this model has failed.")


def _not_done(call: NodesCall) -> str:
    """Says what became of a change whose engine has ended: the next one has the nodes of before."""
    if call.action is NodesAction.LIST:
        return ""
    done = "added" if call.action is NodesAction.ADD else "removed"
    return f" {call.address} was not {done}: ask again when the model is served again."
