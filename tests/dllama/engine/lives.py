"""Lives of a service: nodes are lost, engines die and are followed by others, as a schedule says.
What the clients hear comes by the server's own OutputRouter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from api.engines.open_sequence import OutputStream
from api.engines.router import OutputRouter
from dllama.engine.engine import Engine
from dllama.errors import ClusterError, PeerLost
from dllama.kv import KvShift
from dllama.requests import FinishReason, Submit, TokenProbs
from dllama.runner import Runner
from dllama.step import LogitRow, Step


class Fault(StrEnum):
    LOSS = "a node is lost before the call"
    LATE_LOSS = "a node is lost after all ranks have computed, before the root hears of it"
    CHANGE = "the nodes change"
    DEATH = "the engine dies before its step"
    LATE_DEATH = "the engine dies with the outputs of its step"


T = TypeVar("T")
LOSSES = (Fault.LOSS, Fault.LATE_LOSS)
Forget = Callable[[Runner], None]


class FailingRunner:
    """Any runner, which fails when it is told to, and then has nothing in its pages that could be
    used by mistake: `forget` sees to it."""

    def __init__(self, runner: Runner, forget: Forget) -> None:
        self._runner, self._forget = runner, forget
        self._fault: Fault | None = None
        self._is_lost = False
        self.change: str | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def fail(self, fault: Fault) -> None:
        self._fault = fault

    def run(self, step: Step) -> list[LogitRow]:
        return self._calling(lambda: self._runner.run(step))

    def shift(self, shift: KvShift) -> None:
        self._calling(lambda: self._runner.shift(shift))

    @property
    def pending_change(self) -> str | None:
        return self.change

    def recover(self) -> None:
        self._forget(self._runner)
        self._is_lost, self.change = False, None

    def _calling(self, call: Callable[[], T]) -> T:
        fault, self._fault = self._fault, None
        if self._is_lost or fault is Fault.LOSS:
            self._lose()
        done = call()
        if fault is Fault.LATE_LOSS:
            self._lose()
        return done

    def _lose(self) -> None:
        self._is_lost = True
        self._forget(self._runner)
        raise PeerLost("a node is lost", rank=1, host="there")


@dataclass(frozen=True)
class Told:
    """All that a client heard of a sequence."""

    tokens: list[int]
    probs: list[TokenProbs]
    embedding: bytes | None
    finish: FinishReason | None
    error: str
    n_prompt: int
    n_replaced: int


def live(
    runner: Runner,
    forget: Forget,
    make_engine: Callable[[Runner], Engine],
    submits: Sequence[Submit],
    faults: Mapping[int, Fault],
) -> dict[str, Told]:
    """What the clients hear, with these faults before the steps of these numbers."""
    router = OutputRouter(max_open=1000)
    streams = {submit.id: router.open(submit, 0.0).stream for submit in submits}
    failing = FailingRunner(runner, forget)
    engine = make_engine(failing)  # type: ignore[arg-type]
    router.send_unsent(engine.submit, 0.0)
    n = 0
    while len(router):
        fault = faults.get(n)
        n += 1
        assert n < 20_000, "a sequence starves"
        if fault in LOSSES:
            failing.fail(fault)
        elif fault is Fault.CHANGE:
            failing.change = "a node has come back"
        if fault is not Fault.DEATH:
            outputs = step(engine)
            if fault is not Fault.LATE_DEATH:
                router.deliver(outputs)
        engine.scheduler.check_integrity()
        if fault in (Fault.DEATH, Fault.LATE_DEATH):
            forget(runner)
            failing = FailingRunner(runner, forget)
            engine = make_engine(failing)  # type: ignore[arg-type]
            router.engine_gone("The engine ended.")
            router.send_unsent(engine.submit, 0.0)
    forget(runner)
    return {name: asyncio.run(heard(stream)) for name, stream in streams.items()}


def step(engine: Engine) -> list:  # type: ignore[type-arg]
    """A step as EngineLoop takes it."""
    change = engine.pending_change
    if change is not None:
        engine.suspend(change)
        engine.recover()
    try:
        return engine.step()
    except ClusterError:
        engine.recover()
        return []


async def heard(stream: OutputStream) -> Told:
    tokens: list[int] = []
    probs: list[TokenProbs] = []
    finish, embedding, error, n_prompt, n_replaced = None, None, "", 0, 0
    try:
        async for output in stream:
            tokens += output.tokens
            probs += output.probs or []
            finish, n_prompt, n_replaced = output.finish, output.n_prompt, output.n_replaced
            embedding = output.embedding or embedding
    except Exception as failure:
        error = str(failure)
    return Told(tokens, probs, embedding, finish, error, n_prompt, n_replaced)
