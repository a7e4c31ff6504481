"""The loop that loads, drives and recovers an engine: messages in, steps, messages out.

It does no I/O: messages come and go by a Transport, time by a clock. The engine process runs it
over ZeroMQ (cluster/engine_server.py), an engine in a thread over queues
(api/engines/in_process.py).

Its states are those of EngineState: "loading", then "ready"; when a node is lost "recovering" (and
"loading" while weights are sent again), then "ready"; at the end "failed", unless the transport is
closed before. A request that comes while it is recovering is refused by the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from dllama.engine.outputs import EngineInterrupted
from dllama.errors import ClusterError, DllamaError
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
FIRST_PAUSE_S = 0.5  # before the first attempt to recover
MAX_PAUSE_S = 3.0
PAUSE_GROWTH = 1.6
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

    `submit` raises nothing: a refusal is an Output. `step` and `idle` raise EngineInterrupted.
    """

    def submit(self, submit: Submit) -> None: ...

    def abort(self, sequence_id: str, /) -> None: ...

    def has_work(self) -> bool: ...

    def step(self) -> list[Output]: ...

    def idle(self) -> None: ...

    def recover(self) -> None: ...

    def stats(self) -> dict[str, object]: ...

    def session(self, call: SessionCall) -> SessionReply: ...


class EngineLoop:
    """Serves one engine to one client."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport, self._clock = transport, clock
        self._told_s: float | None = None  # when progress was last reported
        self._pause_s: float | None = None  # while recovering: between two attempts
        self._retry_at_s = 0.0

    def run(self, load: Callable[[Progress], DrivenEngine]) -> bool:
        """Loads an engine and serves until the transport is closed (returns True) or the engine
        has failed for good (returns False, after the client and the log were told why)."""
        try:
            self._transport.send(EngineState("loading"))
            engine = load(self.report)
            self._transport.send(EngineState("ready", progress=1.0))
            while True:
                self.turn(engine)
        except TransportClosed:
            log.info("the server is gone; the engine ends")
            return True
        except DllamaError as error:
            log.info("the engine has failed: %s", error)  # the server says it aloud
            self._fail(str(error))
        except Exception as error:
            log.exception("the engine has failed")
            self._fail(f"the engine has failed: {error!r}; its log tells more, load the model anew")
        return False

    def turn(self, engine: DrivenEngine) -> None:
        """Handles messages, then runs a step, checks on the nodes, or tries to recover."""
        if self._pause_s is not None:
            self._turn_of_recovery(engine, self._pause_s)
            return
        self._attend(engine, 0.0 if self._may_step(engine) else IDLE_S)
        try:
            if self._may_step(engine):
                self._deliver(engine.step())
            else:
                engine.idle()
        except EngineInterrupted as lost:
            log.warning("a node is lost: %s", lost)
            self._deliver(lost.outputs)
            self._transport.send(EngineState("recovering", detail=str(lost)))
            self._wait_before_retry(FIRST_PAUSE_S)

    def report(self, progress: float, detail: str) -> None:
        """Reports the progress of loading, also of weights sent again; every PROGRESS_S at most."""
        now_s = self._clock()
        if self._told_s is None or now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            self._transport.send(EngineState("loading", progress, detail))
            self._transport.flush(0.0)

    def _turn_of_recovery(self, engine: DrivenEngine, pause_s: float) -> None:
        """Refuses requests and answers queries until the pause is over, then tries to recover."""
        left_s = self._retry_at_s - self._clock()
        if left_s > 0.0:
            self._attend(engine, min(left_s, IDLE_S))
            self._deliver(engine.step())  # refusals only
            return
        try:
            engine.recover()
        except ClusterError as error:
            log.warning("the nodes are not back yet: %s", error)
            self._transport.send(EngineState("recovering", detail=str(error)))
            self._wait_before_retry(min(pause_s * PAUSE_GROWTH, MAX_PAUSE_S))
        else:
            log.info("the nodes are back")
            self._transport.send(EngineState("ready", progress=1.0))
            self._pause_s = None

    def _wait_before_retry(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._retry_at_s = self._clock() + pause_s

    def _may_step(self, engine: DrivenEngine) -> bool:
        return not self._transport.is_behind and engine.has_work()

    def _attend(self, engine: DrivenEngine, timeout_s: float) -> None:
        for message in self._transport.receive(timeout_s):
            match message:
                case Submit():
                    engine.submit(message)
                case Abort():
                    engine.abort(message.id)
                case SessionCall():
                    self._transport.send(engine.session(message))
                case StatsQuery():
                    self._transport.send(StatsReply(message.id, engine.stats()))
                case _:
                    assert_never(message)

    def _deliver(self, outputs: list[Output]) -> None:
        if outputs:
            self._transport.send(StepDone(outputs))

    def _fail(self, detail: str) -> None:
        """Sends the last message of this engine, if it is read in time."""
        try:
            self._transport.send(EngineState("failed", detail=detail))
            self._transport.flush(LINGER_S)
        except TransportClosed:
            log.info("the server is gone; the engine ends")
