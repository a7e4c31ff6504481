"""The loop that loads, drives and recovers an engine: messages in, steps, messages out.

It does no I/O: messages come and go by a Transport, time by a clock. The engine process runs it
over ZeroMQ (cluster/engine_server.py), an engine in a thread over queues
(api/engines/in_process.py).

Its states are those of EngineState: "loading", then "ready"; when a node is lost, or when the nodes
have changed, "recovering" (and "loading" while weights are sent again), then "ready"; at the end
"failed", unless the transport is closed before. Sequences and new requests wait while it recovers,
for `max_recover_s` at most; then all of them end, and the loop tries on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S, Recovery
from dllama.engine.request_log import RequestLog
from dllama.errors import ClusterError, DllamaError, TooLittleMemory
from dllama.nodes import NodesCall, NodesReply
from dllama.requests import (
    Abort,
    EngineState,
    FromEngine,
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

IDLE_S = 0.1  # interval of checks on the nodes while there is no work
PROGRESS_S = 0.1  # least interval between two reports of progress
LINGER_S = 1.0  # for the last message of an engine that has failed

Progress = Callable[[float, str], None]
"""Reports how far loading is: a share from 0 to 1, and a line of text."""


class TransportClosed(Exception):
    """The one that the engine serves is gone; so the engine ends."""


class Transport(Protocol):
    """The messages of one client. Every method raises TransportClosed when that is gone."""

    @property
    def is_behind(self) -> bool:
        """Whether messages wait for a slow reader. Then no step is run, so that neither side grows
        and nothing is lost."""
        ...

    def receive(self, timeout_s: float) -> Sequence[ToEngine]:
        """The messages that have come; waits up to `timeout_s` for the first. None while the
        reader is behind."""
        ...

    def send(self, message: FromEngine) -> None:
        """Sends a message, or keeps it until the reader has room; does not wait."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Sends messages that wait, for up to `timeout_s`."""
        ...


class DrivenEngine(Protocol):
    """The part of dllama.engine.engine.Engine that the loop uses, on one thread only.

    `submit` raises nothing: a refusal is an Output. `step`, `idle`, `recover` raise ClusterError.
    """

    @property
    def pending_change(self) -> str | None: ...

    def submit(self, submit: Submit) -> None: ...

    def abort(self, sequence_id: str, /) -> None: ...

    def has_work(self) -> bool: ...

    def step(self) -> list[Output]: ...

    def idle(self) -> None: ...

    def suspend(self, reason: str, /) -> None: ...

    def recover(self) -> None: ...

    def give_up(self) -> None: ...

    def stats(self) -> dict[str, object]: ...

    def session(self, call: SessionCall) -> SessionReply: ...

    def nodes(self, call: NodesCall) -> NodesReply | None: ...

    def node_replies(self) -> list[NodesReply]: ...


class EngineLoop:
    """Serves one engine to one client."""

    def __init__(
        self,
        transport: Transport,
        clock: Callable[[], float],
        *,
        max_recover_s: float = DEFAULT_MAX_RECOVER_S,
    ) -> None:
        self._transport, self._clock = transport, clock
        self._max_recover_s = max_recover_s
        self._told_s: float | None = None  # when progress was last reported
        self._recovery: Recovery | None = None  # while a node is lost
        self._engine: DrivenEngine | None = None  # once it is loaded
        self._requests = RequestLog()

    def run(self, load: Callable[[Progress], DrivenEngine]) -> bool:
        """Loads an engine and serves until the transport is closed (returns True) or the engine
        has failed for good (returns False, after the client and the log were told why)."""
        try:
            self._transport.send(EngineState("loading"))
            engine = self._engine = load(self.report)
            self._transport.send(EngineState("ready", progress=1.0))
            while True:
                self.turn(engine)
        except TransportClosed:
            log.info("the server is gone; the engine ends")
            return True
        except DllamaError as error:
            log.info("the engine has failed: %s", error)  # the server says it aloud
            self._fail(str(error), is_short=isinstance(error, TooLittleMemory))
        except Exception as error:
            log.exception("the engine has failed")
            self._fail(f"the engine has failed: {error!r}; its log tells more, load the model anew")
        return False

    def turn(self, engine: DrivenEngine) -> None:
        """Handles messages, then runs a step, checks on the nodes, or tries to recover."""
        if self._recovery is not None:
            self._turn_of_recovery(engine, self._recovery)
            return
        self._attend(engine, 0.0 if self._may_step(engine) else IDLE_S)
        change = engine.pending_change
        if change is not None:
            log.warning("the nodes have changed: %s", change)
            engine.suspend(change)
            self._begin_recovery(change)
            return
        try:
            if self._may_step(engine):
                self._deliver(engine.step())
            else:
                engine.idle()
        except ClusterError as lost:
            log.warning("a node is lost: %s", lost)
            self._begin_recovery(str(lost))

    def report(self, progress: float, detail: str) -> None:
        """Reports the progress of loading, also of weights sent again; every PROGRESS_S at most.
        Messages are handled meanwhile if it is the latter."""
        now_s = self._clock()
        if self._told_s is not None and now_s - self._told_s < PROGRESS_S:
            return
        self._told_s = now_s
        recovery = self._recovery
        if self._engine is not None and recovery is not None:
            self._serve_waiting(self._engine, recovery, 0.0)
        queues = recovery is not None and not recovery.has_given_up
        self._transport.send(EngineState("loading", progress, detail, queues))
        self._transport.flush(0.0)

    def _turn_of_recovery(self, engine: DrivenEngine, recovery: Recovery) -> None:
        """Handles messages until the next attempt is due, then tries to recover."""
        left_s = recovery.due_in(self._clock())
        self._serve_waiting(engine, recovery, min(left_s, IDLE_S))
        if left_s > 0.0:
            return
        try:
            engine.recover()
        except ClusterError as error:
            log.warning("the nodes are not back yet: %s", error)
            recovery.note_failure(self._clock())
            self._tell_recovering(str(error), recovery)
        else:
            log.info("the nodes are back")
            self._recovery = None
            self._transport.send(EngineState("ready", progress=1.0))

    def _begin_recovery(self, reason: str) -> None:
        self._recovery = Recovery(self._clock(), self._max_recover_s)
        self._tell_recovering(reason, self._recovery)

    def _tell_recovering(self, reason: str, recovery: Recovery) -> None:
        queues = not recovery.has_given_up
        self._transport.send(EngineState("recovering", detail=reason, queues=queues))

    def _serve_waiting(self, engine: DrivenEngine, recovery: Recovery, timeout_s: float) -> None:
        """Handles messages while no step can be run, and ends sequences that have waited too
        long."""
        self._attend(engine, timeout_s)
        if recovery.must_give_up(self._clock()):
            log.error("the nodes are not back after %g s; answers end", self._max_recover_s)
            engine.give_up()
            self._tell_recovering("the answers that waited have ended; it is tried on", recovery)
        self._deliver(engine.step())

    def _may_step(self, engine: DrivenEngine) -> bool:
        return not self._transport.is_behind and engine.has_work()

    def _attend(self, engine: DrivenEngine, timeout_s: float) -> None:
        for message in self._transport.receive(timeout_s):
            match message:
                case Submit():
                    self._requests.arrived(message)
                    engine.submit(message)
                case Abort():
                    self._requests.aborted(message.id)
                    engine.abort(message.id)
                case SessionCall():
                    self._transport.send(engine.session(message))
                case NodesCall():
                    reply = engine.nodes(message)
                    if reply is not None:
                        self._transport.send(reply)
                case StatsQuery():
                    self._transport.send(StatsReply(message.id, engine.stats()))
                case _:
                    assert_never(message)
        for reply in engine.node_replies():
            self._transport.send(reply)

    def _deliver(self, outputs: list[Output]) -> None:
        if outputs:
            self._requests.delivered(outputs)
            self._transport.send(StepDone(outputs))

    def _fail(self, detail: str, *, is_short: bool = False) -> None:
        """Sends the last message of this engine, if it is read in time."""
        try:
            self._transport.send(EngineState("failed", detail=detail, is_short=is_short))
            self._transport.flush(LINGER_S)
        except TransportClosed:
            log.info("the server is gone; the engine ends")
