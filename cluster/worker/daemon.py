"""The worker daemon: answers roots, starts a process for each session, and sends its heartbeats.

It computes nothing, so it always answers in time, and no message ends it. Strangers reach it only
through its front, which bounds what they say.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import zmq

from cluster.front.private import PrivateEndpoint
from cluster.repeats import Repeats
from cluster.security.keys import KeyPair
from cluster.security.peer import Peer
from cluster.security.worker_side import WorkerSide
from cluster.sockets import SESSION_PORTS, Context, Socket, make_socket, session_ports
from cluster.weights.store import WeightStore
from cluster.wire.messages import (
    Draining,
    Failed,
    Heartbeat,
    Joined,
    Loaded,
    Message,
    Refused,
    SessionEnded,
    SessionReady,
    pack,
    unpack,
)
from cluster.worker.door import Door
from cluster.worker.launcher import Launcher
from cluster.worker.open_sessions import OpenSessions
from cluster.worker.root_answers import RootAnswers
from cluster.worker.session_process import SessionProcess
from cluster.worker.worker_config import WorkerConfig
from dllama.errors import ConfigError, DllamaError, ProtocolError
from dllama.host.container import available_memory

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5
POLL_MS = 100
SOON_MS = 10  # while a root waits for the end of its earlier session
MAX_MESSAGE_BYTES = 16 << 10  # nothing a root says to a daemon is longer
MAX_REPORT_BYTES = 64 << 10  # of a session process
HIGHEST_PORT = 65_535 - SESSION_PORTS
MAX_READ = 32  # messages of roots that are read before heartbeats and reports have their turn
DRAIN_S = 30.0  # for roots to plan without this worker


class Worker:
    """The daemon. One thread; `stop` and `drain` may be called from a signal handler."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._repeats = Repeats()
        self._is_running = False
        self._drains_until: float | None = None  # once it drains
        self._connections = itertools.count(1)  # the numbers of both doors'
        self.port = 0  # known after start()

    def start(self) -> None:
        """Listens. Raises ConfigError where the port is taken."""
        self._context: Context = zmq.Context()
        self._report_endpoint = PrivateEndpoint()
        self._reports: Socket = make_socket(  # from our own children only
            self._context, zmq.PULL, host="", max_message_bytes=MAX_REPORT_BYTES
        )
        self._doors: list[Door] = []  # the plain one, and the encrypted one
        self._sessions = OpenSessions(self._trust, self._config.max_sessions)
        self._launcher = Launcher(self._config.session_command)
        self._answers = RootAnswers(
            self._config,
            self._sessions,
            self._launcher,
            report_endpoint=self._report_endpoint.endpoint,
            is_draining=lambda: self._drains_until is not None,
            is_news=self._is_news,
        )
        try:
            self._report_endpoint.bind(self._reports)
            self.port = self._open_door([self._config.port])
            if self.port > HIGHEST_PORT:
                raise ConfigError(
                    f"--port {self.port} leaves no ports for sessions, which use those after it; "
                    f"choose one up to {HIGHEST_PORT}"
                )
            self._known = self._open_encrypted_door()
        except BaseException:
            self.close()
            raise
        self._is_running = True
        WeightStore(Path(self._config.cache_dir), self._config.cache_bytes).check()
        log.info(
            "dllama-worker %s listens on %s:%d with %d threads and %.1f GB of memory free, %s; "
            "waiting",
            self._config.release,
            self._config.host,
            self.port,
            self._config.threads,
            available_memory() / 1e9,
            self._config.security.summary(self._config.host),
        )

    def _open_door(self, ports: Iterable[int], pair: KeyPair | None = None) -> int:
        door = Door(self._context, MAX_MESSAGE_BYTES, self._connections, pair)
        self._doors.append(door)
        return door.open(self._config.host, ports)

    def _open_encrypted_door(self) -> WorkerSide:
        """Listens for encrypted links, unless roots on this machine alone can reach it."""
        security = self._config.security
        key, port = "", 0
        if security.has_to_encrypt(self._config.host):
            pair = security.pair()
            key, port = pair.public, self._open_door(session_ports(self.port), pair)
        known = WorkerSide(
            security,
            release=self._config.release,
            features=self._config.features,
            key=key,
            port=port,
            new_nonce=lambda: secrets.token_hex(32),
            is_news=self._is_news,
        )
        if key:
            self._doors[-1].admit_by(known.may_enter)
        return known

    def _is_connected(self, connection: int) -> bool:
        return any(door.front.address_of(connection) for door in self._doors)

    def _trust(self, connections: frozenset[int]) -> None:
        for door in self._doors:
            door.front.trust(connections)

    def run(self) -> None:
        """Serves until stop(): what is ours comes first, strangers last."""
        poller = zmq.Poller()
        for door in self._doors:
            poller.register(door.socket, zmq.POLLIN)
        poller.register(self._reports, zmq.POLLIN)
        next_heartbeat = 0.0
        while self._is_running:
            poller.poll(SOON_MS if self._answers.postponed() else POLL_MS)
            self._receive_reports()
            self._reap_ended()
            for peer, frames in self._answers.take_due():
                self._serve(self._doors[int(peer.is_encrypted)], peer, frames)
            if time.monotonic() >= next_heartbeat:
                next_heartbeat = time.monotonic() + HEARTBEAT_S
                self._send_heartbeats()
                self._sessions.end_overdue()
                self._sessions.end_left(self._is_connected)
                self._go_on_draining()
                self._prepare_next()
                for line in self._repeats.due(time.monotonic()):
                    log.warning("%s", line)
            for door in self._doors:
                self._receive_from_roots(door)

    def _prepare_next(self) -> None:
        now_s = time.monotonic()
        if self._sessions.slots.is_loading:
            self._launcher.put_off(now_s)
        self._launcher.prepare(now_s)

    def stop(self) -> None:
        """Ends `run` at once, and with it the sessions."""
        self._is_running = False

    def drain(self) -> None:
        """Has roots plan without this worker, and ends `run` when they have, after DRAIN_S at the
        latest. Called again it stops at once."""
        if self._drains_until is not None:
            self.stop()
        self._drains_until = time.monotonic() + DRAIN_S

    def _go_on_draining(self) -> None:
        if self._drains_until is None:
            return
        if not self._sessions:
            log.info("drained: no session is open; this worker ends")
            self.stop()
        elif time.monotonic() > self._drains_until:
            log.warning("roots use this worker still after %g s; it ends all the same", DRAIN_S)
            self.stop()
        for epoch, session in self._sessions:
            self._send(session.peer, epoch, Draining())

    def close(self) -> None:
        """Ends all sessions and stops listening."""
        self._sessions.close()
        self._launcher.close()
        for door in self._doors:
            door.close()
        self._reports.close()
        self._context.destroy()
        self._report_endpoint.close()

    def _receive_from_roots(self, door: Door) -> None:
        for _ in range(MAX_READ):
            try:
                peer, frames = door.receive()
            except zmq.Again:
                return
            self._serve(door, peer, frames)

    def _serve(self, door: Door, peer: Peer, frames: list[bytes]) -> None:
        epoch = 0
        try:
            epoch, message = unpack(frames)
            answer = self._known.hear(peer, message)
            answer = answer or self._answers.answer(peer, epoch, message, self.port)
        except ProtocolError as error:  # perhaps another version: it can read the head of this
            door.front.offended(peer.connection, "sends what no root of this version sends")
            if self._is_news(peer, "a message that was refused"):
                log.warning("refused a message of %s: %s", peer.host, error)
            answer = self._known.only_versions(peer) or self._answers.welcome(peer)
        except (DllamaError, OSError) as error:  # no process, no descriptor, no room for a file
            log.error("could not open a session: %s", error)
            answer = Refused(f"it could not start a process: {error}")
        except Exception as error:
            log.exception("could not serve a message")
            answer = Refused(f"{type(error).__name__}: {error}")
        if answer is not None:
            self._send(peer, epoch, answer)

    def _is_news(self, peer: Peer, kind: str) -> bool:
        return self._repeats.is_first(peer.host, kind, time.monotonic())

    def _receive_reports(self) -> None:
        while True:
            try:
                frames = self._reports.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._take_report(*unpack(frames))
            except ProtocolError as error:
                if self._repeats.is_first("a session", "a bad report", time.monotonic()):
                    log.warning("dropped a report: %s", error)

    def _take_report(self, epoch: int, message: Message) -> None:
        """Forwards the ports of a session to its root; records how far a session got, and why it
        failed."""
        session = self._sessions.get(epoch)
        if session is None:
            return
        if isinstance(message, SessionReady):
            self._send(session.peer, epoch, message)
            self._send_heartbeat(epoch, session)
        elif isinstance(message, Joined):
            self._sessions.slots.joined(epoch)
        elif isinstance(message, Loaded):
            self._sessions.slots.loaded(epoch)
        elif isinstance(message, Failed):
            session.reason = message.reason

    def _reap_ended(self) -> None:
        for epoch, session in self._sessions:
            if session.has_ended():
                self._receive_reports()  # its last one may still be queued
                reason = session.why()
                self._sessions.forget(epoch)
                self._send(session.peer, epoch, SessionEnded(reason))
                log.info(
                    "session of rank %d ended: %s; %s",
                    session.config.rank,
                    reason,
                    "waiting" if not self._sessions else f"{len(self._sessions)} still open",
                )

    def _send_heartbeats(self) -> None:
        for epoch, session in self._sessions:
            self._send_heartbeat(epoch, session)
        for each in self._answers.postponed():
            self._send(each.peer, each.epoch, Heartbeat(0, 0))

    def _send_heartbeat(self, epoch: int, session: SessionProcess) -> None:
        heartbeat = Heartbeat(session.progress(), session.rss_bytes())
        self._send(session.peer, epoch, heartbeat)

    def _send(self, peer: Peer, epoch: int, message: Message) -> None:
        """Sends a message to a root; a root that is gone is ignored."""
        socket = self._doors[int(peer.is_encrypted)].socket
        try:
            socket.send_multipart([peer.identity, *pack(message, epoch)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.debug("could not answer a root: %s", error)
