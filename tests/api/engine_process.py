"""Stands for an engine process: a scripted engine at the other end of a ZmqEngineClient."""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq

from cluster.engine_wire import decode_message, encode_message
from dllama.engine.engine import EngineInterrupted
from dllama.errors import ClusterError
from dllama.requests import (
    Abort,
    EngineState,
    FromEngine,
    Output,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
)
from tests.api.scripted_engine import ScriptedEngine


class EngineProcess:
    """A thread with a blocking DEALER, as an engine process has; `die` is what SIGKILL does."""

    def __init__(self, engine: ScriptedEngine, endpoint: str) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def die(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self._endpoint)

            def send(message: FromEngine) -> None:
                socket.send(encode_message(message))

            send(EngineState("loading", 0.5, "half of it"))
            send(EngineState("ready", 1.0))
            while not self._ends.is_set():
                self._turn(socket, send)

    def _turn(self, socket: zmq.Socket[bytes], send: Callable[[FromEngine], None]) -> None:
        while socket.poll(0 if self._engine.has_work() else 5):
            self._take(decode_message(socket.recv()), send)
        try:
            outputs: list[Output] = []
            if self._engine.has_work():
                outputs = self._engine.step()
            else:
                self._engine.idle()
        except EngineInterrupted as lost:
            send(StepDone(lost.outputs))
            send(EngineState("recovering", 0.0, str(lost)))
            self._recover()
            send(EngineState("ready", 1.0))
        except Exception as error:
            send(EngineState("failed", 0.0, repr(error)))
            self._ends.set()
        else:
            if outputs:
                send(StepDone(outputs))

    def _take(self, message: object, send: Callable[[FromEngine], None]) -> None:
        if isinstance(message, Submit):
            self._engine.submit(message)
        elif isinstance(message, Abort):
            self._engine.abort(message.id)
        elif isinstance(message, StatsQuery):
            send(StatsReply(message.id, self._engine.stats()))

    def _recover(self) -> None:
        while not self._ends.wait(0.01):
            try:
                return self._engine.recover()
            except ClusterError:
                continue
