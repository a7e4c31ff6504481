"""Greets workers apart from any session, each in a thread of its own: names are looked up and
connections wait there, while steps are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import zmq

from cluster.root.worker_links import WorkerLinks
from cluster.security.settings import Security
from cluster.sockets import Address, Context
from cluster.wire.messages import Welcome
from dllama.errors import DllamaError

MAX_THREADS = 16
Greet = Callable[[Address, float], Welcome]
"""Greets one worker within so many seconds. Raises DllamaError."""


class Scouts:
    """Greetings under way, by address. Has no thread before the first."""

    def __init__(self, greet: Greet) -> None:
        self._greet = greet
        self._pool: ThreadPoolExecutor | None = None
        self._asked: dict[Address, Future[Welcome]] = {}

    def ask(self, address: Address, timeout_s: float) -> None:
        """Begins to greet a worker, unless that is under way."""
        if address in self._asked:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="scout")
        self._asked[address] = self._pool.submit(self._greet, address, timeout_s)

    def answers(self) -> Iterator[tuple[Address, Welcome | DllamaError]]:
        """Yields what the greetings led to that have ended since."""
        for address, future in list(self._asked.items()):
            if not future.done():
                continue
            del self._asked[address]
            error = future.exception()
            if error is None:
                yield address, future.result()
            elif isinstance(error, DllamaError):
                yield address, error
            else:
                raise error

    def close(self) -> None:
        """Waits for the greetings under way, which end by themselves."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def greeter(release: str, security: Security) -> Greet:
    """Returns a function that greets a worker over links of its own."""

    def greet(address: Address, timeout_s: float) -> Welcome:
        context: Context = zmq.Context()
        try:
            links = WorkerLinks([address], context, release, security)
            try:
                (welcome,) = links.greet(timeout_s)
                return welcome
            finally:
                links.close()
        finally:
            context.destroy()

    return greet
