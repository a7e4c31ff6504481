"""The answers of a daemon to roots that were introduced: what this machine is, and sessions."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cluster.machine import describe_machine
from cluster.mesh.sync_type import MAX_RANKS, SyncType
from cluster.security.keys import is_key
from cluster.security.peer import Peer
from cluster.wire.messages import (
    CloseSession,
    Hello,
    Message,
    OpenSession,
    Refused,
    SessionEnded,
    Welcome,
    pack,
)
from cluster.worker.challenge import Challenge
from cluster.worker.launcher import Launcher
from cluster.worker.open_sessions import OpenSessions
from cluster.worker.session_config import SessionConfig
from cluster.worker.session_process import SessionProcess
from cluster.worker.worker_config import WorkerConfig
from dllama.errors import ProtocolError

log = logging.getLogger(__name__)


class Postponed(NamedTuple):
    """A session that a root wants, whose earlier one is not gone yet."""

    peer: Peer
    epoch: int
    asked: OpenSession


DRAINS = "it drains and ends; start dllama-worker there again"


class RootAnswers:
    """Answers one message at a time. Sends nothing itself.

    `report_endpoint` is where session processes report to. `is_draining` tells whether the daemon
    is to end, and `is_news` whether something is to be logged of a peer, and not only counted.
    """

    def __init__(
        self,
        config: WorkerConfig,
        sessions: OpenSessions,
        launcher: Launcher,
        *,
        report_endpoint: str,
        is_draining: Callable[[], bool],
        is_news: Callable[[Peer, str], bool],
    ) -> None:
        self._config, self._sessions, self._launcher = config, sessions, launcher
        self._report_endpoint = report_endpoint
        self._is_draining, self._is_news = is_draining, is_news
        self._postponed: dict[str, Postponed] = {}  # by root: the last that it asked for
        self._challenge = Challenge(secrets.token_bytes(32))
        self._id = secrets.token_hex(8)  # the same whichever address a root found us by

    def welcome(self, peer: Peer) -> Welcome:
        nonce = self._challenge.issue(peer.host, time.monotonic())
        found = describe_machine(self._id, self._config.threads, self._config.release, nonce)
        return replace(found, memory_available=self._sessions.free_bytes())

    def answer(self, peer: Peer, epoch: int, message: Message, port: int) -> Message | None:
        """Returns what to answer at once, if anything; `port` is the daemon's. Raises ProtocolError
        for what a daemon has no use for, and what the start of a process raises."""
        if self._is_draining() and isinstance(message, Hello | OpenSession):
            return Refused(DRAINS)
        if isinstance(message, Hello):
            is_other = message.release != self._config.release
            if is_other and self._is_news(peer, "another release"):
                log.warning(
                    "a root at %s runs dllama %r and this worker %r; both speak the same protocol",
                    peer.host,
                    message.release,
                    self._config.release,
                )
            return self.welcome(peer)
        if isinstance(message, OpenSession):
            return self._open(peer, epoch, message, port)
        if isinstance(message, CloseSession):
            session = self._sessions.get(epoch)
            for each in self.postponed():
                if each.epoch == epoch:
                    del self._postponed[each.asked.root]
            if session is None:
                return SessionEnded("there is no such session")
            session.end("the root closed it")
            return None
        raise ProtocolError(f"a daemon has no use for a {type(message).__name__} message")

    def postponed(self) -> list[Postponed]:
        """Returns the sessions that wait for the end of earlier ones; their roots wait for a
        heartbeat meanwhile."""
        return list(self._postponed.values())

    def take_due(self) -> list[tuple[Peer, list[bytes]]]:
        """Returns the messages that can be answered now, as they came, and forgets them."""
        self._sessions.reap_killed()
        due = [e for e in self.postponed() if not self._sessions.has_killed(e.asked.root)]
        for each in due:
            del self._postponed[each.asked.root]
        return [(e.peer, [bytes(frame) for frame in pack(e.asked, e.epoch)]) for e in due]

    def _refusal(self, peer: Peer, epoch: int, asked: OpenSession) -> str | None:
        """Returns why a session is not opened whatever is free, or None. Kills the root's earlier
        ones."""
        if not self._challenge.accepts(peer.host, asked.nonce, time.monotonic()):
            return "a session is opened only with the nonce of this daemon's Welcome; say Hello"
        self._sessions.kill_those_of(asked.root)
        is_sound = 0 < asked.rank < asked.world_size <= MAX_RANKS and epoch > 0
        is_sound = is_sound and is_key(asked.key) == peer.is_encrypted
        if not is_sound or asked.sync_type not in list(SyncType) or epoch in self._sessions:
            return f"this is no session that can be opened: {asked}"
        return None

    def _open(self, peer: Peer, epoch: int, asked: OpenSession, port: int) -> Message | None:
        refusal = self._refusal(peer, epoch, asked)
        if refusal is None and self._sessions.has_killed(asked.root):
            self._postponed[asked.root] = Postponed(peer, epoch, asked)
            return None
        refusal = refusal or self._sessions.refusal(peer.host, asked.needed_bytes)
        if refusal is not None:
            if self._is_news(peer, "a session that was refused"):
                log.warning("refused a session to %s: %s", peer.host, refusal)
            return Refused(refusal)
        child = self._launcher.take(time.monotonic())
        config = SessionConfig(
            host=self._config.host,
            port=port,
            threads=self._config.threads,
            epoch=epoch,
            rank=asked.rank,
            world_size=asked.world_size,
            sync_type=asked.sync_type,
            progress_path=str(child.progress.path),
            report_endpoint=self._report_endpoint,
            root_key=asked.key,
            cache_dir=self._config.cache_dir,
            cache_bytes=self._config.cache_bytes,
            log_level=self._config.logs.level,
            log_format=self._config.logs.format,
        )
        session = SessionProcess(config, asked.root, peer, child)
        session.begin()
        self._sessions.add(epoch, session, peer.connection, peer.host, asked.needed_bytes)
        log.info(
            "a root opened a session: rank %d of %d, process %d",
            asked.rank,
            asked.world_size,
            session.pid,
        )
        return None
