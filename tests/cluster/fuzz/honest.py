"""Those who are to be served all the while: a root that says hello anew each time, and the steps of
a cluster whose answers are known."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import zmq

from cluster.root.runner import ClusterRunner
from cluster.sockets import Address, endpoint
from cluster.wire.messages import Hello, Welcome, pack, unpack
from dllama import __version__
from tests.cluster.steps import logits

EVERY_S = 0.1
PATIENCE_MS = 20_000
TOKENS = [5, 6, 7]


class Honest:
    """Asks now and then, and remembers the longest answer took. `ask` raises where it is wrong."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._next = 0.0
        self.n_served = 0
        self.worst_s = 0.0
        self.failure = ""

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self._next or self.failure:
            return
        try:
            self._ask()
        except Exception as error:  # it is what the table is to show
            self.failure = f"{type(error).__name__}: {error}"
            return
        took = time.monotonic() - now
        self._next = time.monotonic() + EVERY_S
        self.n_served += 1
        self.worst_s = max(self.worst_s, took)


def hello(address: Address) -> Callable[[], None]:
    """Greets a daemon over a link of its own."""

    def ask() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        link = context.socket(zmq.DEALER)
        try:
            link.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
            link.connect(endpoint(address.host, address.port))
            link.send_multipart(pack(Hello(__version__)))
            _, answer = unpack(link.recv_multipart())
            assert isinstance(answer, Welcome)
        finally:
            context.destroy(linger=0)

    return ask


def step(runner: ClusterRunner) -> Callable[[], None]:
    """Runs a step, whose logits are always the same."""
    expected = logits(runner, TOKENS)

    def ask() -> None:
        assert (logits(runner, TOKENS) == expected).all()

    return ask


def listening(process: psutil.Process, *, but: int = 0) -> list[int]:
    """The ports of a process that others may connect to."""
    return [
        c.laddr.port
        for c in process.net_connections(kind="tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port != but
    ]
