"""The root's links to all workers of a session, which are greeted, awaited and watched together."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import zmq

from cluster.mesh.sync_type import SyncType
from cluster.root.reach import check_distinct, check_names, why_silent
from cluster.root.worker_link import WorkerLink
from cluster.security.root_side import agree_on_encryption, check_pins, pin_all, root_sides
from cluster.security.settings import Security
from cluster.sockets import Address, Context
from cluster.wire.features import sync_feature
from cluster.wire.messages import Admitted, Hello, Message, Welcome
from dllama.errors import ClusterError, PeerLost

POLL_MS = 50
ENCRYPTED_SILENCE = (
    "on its encrypted port; in the firewalls on the way, open the 64 ports after the worker's too"
)
REASON_WAIT_S = 1.0  # a cut link is noticed before the reason for it arrives

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class WorkerLinks:
    """One link a worker, in rank order: rank i is link i - 1."""

    def __init__(
        self, workers: Sequence[Address], context: Context, release: str, security: Security
    ) -> None:
        """Begins to connect to each worker. Raises ClusterError where that cannot be begun."""
        self._release = release
        self._security = security
        self.is_encrypted = False  # known after greet()
        self.also_watch: Callable[[], None] = lambda: None  # may raise PeerLost
        self.interrupt: Callable[[], None] = lambda: None  # raises what is to end a wait
        sides = root_sides(security, workers, release, lambda: secrets.token_hex(32))
        self._links: list[WorkerLink] = []
        try:
            for rank, side in enumerate(sides, start=1):
                self._links.append(WorkerLink(rank, side, context))
        except ClusterError:
            self.close()  # a context whose sockets are open would wait for them for ever
            raise

    def __iter__(self) -> Iterator[WorkerLink]:
        return iter(self._links)

    def of_rank(self, rank: int) -> WorkerLink:
        return self._links[rank - 1]

    def greet(self, timeout_s: float) -> list[Welcome]:
        """Greets every worker and returns their Welcome messages.

        Raises ConfigError for one under two names, PeerLost for one that does not answer,
        ProtocolError for one of another version, ClusterError for one that is not trusted.
        """
        check_names([link.address for link in self._links], timeout_s)
        silent = f"did not answer within {timeout_s:g} s"
        for link in self._links:
            link.tell_daemon(link.side.introduction)
        try:
            self.await_all(Admitted, timeout_s, silent, is_watching=False)
        except PeerLost as lost:
            link = self.of_rank(lost.rank)
            link.check_side()
            raise link.lost(f"{silent}: {why_silent(link.address)}") from None
        for link in self._links:
            link.check_side()
        self._encrypt()
        for link in self._links:
            link.tell_daemon(Hello(self._release))
        if self.is_encrypted:
            silent = f"answered in plain and not {ENCRYPTED_SILENCE}"
        welcomes = self.await_all(Welcome, timeout_s, silent, is_watching=False)
        if self.is_encrypted:
            pin_all(self._security, [link.side for link in self._links])
        check_distinct([link.address for link in self._links], welcomes)
        return welcomes

    def common_sync_type(self, wanted: SyncType) -> SyncType:
        """Returns how partial sums are to travel: as wanted, or as all nodes can do it."""
        for link in self._links:
            if sync_feature(wanted) not in link.side.introduced.features:
                log.warning(
                    "worker %s (dllama %s) cannot exchange partial sums as %s; they travel as %s",
                    link.address,
                    link.side.introduced.release,
                    wanted,
                    SyncType.F32,
                )
                return SyncType.F32
        return wanted

    def _encrypt(self) -> None:
        """Goes on over encrypted links where both sides want that."""
        sides = [link.side for link in self._links]
        self.is_encrypted = agree_on_encryption(self._security, sides)
        if self.is_encrypted:
            check_pins(self._security, sides)
            pair = self._security.pair()
            for link in self._links:
                link.encrypt(pair)

    def await_all(
        self, kind: type[M], timeout_s: float, silent: str, *, is_watching: bool = True
    ) -> list[M]:
        """Returns one message of a kind from every worker, in rank order.

        Raises PeerLost for a worker that sends none in time; `silent` ends its sentence.
        """
        deadline = time.monotonic() + timeout_s
        answers: dict[int, M] = {}
        while True:
            for link in self._links:
                answer = link.answer(kind)
                if answer is not None:
                    answers[link.rank] = answer
            if len(answers) == len(self._links):
                return [answers[link.rank] for link in self._links]
            if is_watching:
                self.watch()
            if time.monotonic() > deadline:
                raise next(li for li in self._links if li.rank not in answers).lost(silent)
            self.poll(POLL_MS)

    def poll(self, timeout_ms: int) -> None:
        """Waits up to timeout_ms for messages of any worker, and keeps them."""
        poller = zmq.Poller()
        for link in self._links:
            for each in link.sockets():
                poller.register(each, zmq.POLLIN)
        poller.poll(timeout_ms)
        for link in self._links:
            link.drain()

    def watch(self) -> None:
        """Reads what has arrived and checks every worker and `also_watch`. Raises PeerLost."""
        self._check()
        self.also_watch()
        self.interrupt()
        for link in self._links:
            if 0 < link.lost_rank <= len(self._links):
                lost = self.of_rank(link.lost_rank)
                raise lost.lost(f"cannot be reached by worker {link.address} (rank {link.rank})")

    def limit_hangs(self, timeout_s: float) -> None:
        """Sets how long a rank may stand still from now on."""
        for link in self._links:
            link.watch_from_now()
            link.hang_timeout_s = timeout_s

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Waits briefly for the reason where the body raises PeerLost, and raises that instead."""
        try:
            yield
        except PeerLost:
            deadline = time.monotonic() + REASON_WAIT_S
            while time.monotonic() < deadline:
                self._check()
                self.poll(POLL_MS)
            raise

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _check(self) -> None:
        for link in self._links:
            link.drain()
        for link in self._links:
            link.check()
