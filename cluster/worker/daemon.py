"""The worker daemon: answers roots, starts a process for each session, and sends its heartbeats.

It computes nothing, so it always answers in time, and no message ends it.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field

import zmq

from cluster.machine import describe_machine
from cluster.mesh.sync_type import SyncType
from cluster.security.keys import is_key
from cluster.security.settings import Security
from cluster.security.worker_side import Caller, WorkerSide
from cluster.sockets import (
    DEFAULT_PORT,
    Context,
    Socket,
    bind_first_free,
    endpoint,
    make_socket,
    sender_address,
)
from cluster.wire.features import own_features
from cluster.wire.messages import (
    CloseSession,
    Failed,
    Heartbeat,
    Hello,
    Message,
    OpenSession,
    Refused,
    SessionEnded,
    SessionReady,
    Welcome,
    pack,
    unpack,
)
from cluster.worker.encrypted_door import EncryptedDoor
from cluster.worker.session import SessionConfig
from cluster.worker.session_process import SESSION_COMMAND, SessionProcess
from dllama import __version__
from dllama.errors import DllamaError, ProtocolError
from dllama.host.container import available_memory
from dllama.host.descriptors import n_free

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5
POLL_MS = 100
MAX_MESSAGE_BYTES = 64 << 10  # nothing a root says to a daemon is longer
MAX_WORLD_SIZE = 1024


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of a daemon. `release` and `session_command` are for tests to change."""

    threads: int
    host: str = "0.0.0.0"
    port: int = DEFAULT_PORT
    security: Security = field(default_factory=Security)
    release: str = __version__
    session_command: tuple[str, ...] = SESSION_COMMAND


class Worker:
    """The daemon. One thread; `stop` may be called from a signal handler."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._sessions: dict[int, SessionProcess] = {}  # by epoch
        self._is_running = False
        self._has_told = False  # that there are no file descriptors left
        self._door: EncryptedDoor | None = None
        self._id = secrets.token_hex(8)  # the same whichever address a root found us by
        self.port = 0  # known after start()

    def start(self) -> None:
        """Listens. Raises ConfigError where the port is taken."""
        self._context: Context = zmq.Context()
        host = self._config.host
        self._roots: Socket = make_socket(
            self._context, zmq.ROUTER, host=host, max_message_bytes=MAX_MESSAGE_BYTES
        )
        self._reports: Socket = make_socket(  # from our own children only
            self._context, zmq.PULL, host="127.0.0.1", max_message_bytes=MAX_MESSAGE_BYTES
        )
        try:
            self.port = bind_first_free(self._roots, host, [self._config.port])
            report_port = bind_first_free(self._reports, "127.0.0.1", [0])
        except BaseException:
            self.close()
            raise
        self._report_endpoint = endpoint("127.0.0.1", report_port)
        self._is_running = True
        self._open_encrypted_door()
        log.info(
            "dllama-worker %s listens on %s:%d with %d threads and %.1f GB of memory free; waiting",
            self._config.release,
            host,
            self.port,
            self._config.threads,
            available_memory() / 1e9,
        )

    def _open_encrypted_door(self) -> None:
        """Listens for encrypted links, unless roots on this machine alone can reach it."""
        security, host = self._config.security, self._config.host
        key, port = "", 0
        if security.has_to_encrypt(host):
            try:
                pair = security.pair()
                self._door = EncryptedDoor(self._context, pair, host, MAX_MESSAGE_BYTES)
                key, port = pair.public, self._door.open(self.port)
            except BaseException:
                self.close()
                raise
        self._roots_known = WorkerSide(
            security,
            release=self._config.release,
            features=own_features(),
            key=key,
            port=port,
            new_nonce=lambda: secrets.token_hex(32),
        )
        if self._door is not None:
            self._door.admit_by(self._roots_known.may_enter)

    def run(self) -> None:
        """Serves until stop()."""
        poller = zmq.Poller()
        poller.register(self._roots, zmq.POLLIN)
        if self._door is not None:
            poller.register(self._door.socket, zmq.POLLIN)
        poller.register(self._reports, zmq.POLLIN)
        next_heartbeat = 0.0
        while self._is_running:
            for ready, _ in poller.poll(POLL_MS):
                if ready is self._reports:
                    self._receive_report()
                else:
                    self._receive_from_root(ready)
            self._reap_ended()
            if time.monotonic() >= next_heartbeat:
                next_heartbeat = time.monotonic() + HEARTBEAT_S
                self._send_heartbeats()
                self._tell_of_descriptors()

    def stop(self) -> None:
        self._is_running = False

    def close(self) -> None:
        """Ends all sessions and stops listening."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._roots.close()
        self._reports.close()
        if self._door is not None:
            self._door.close()
        self._context.destroy()

    def _receive_from_root(self, link: Socket) -> None:
        identity, *frames = link.recv_multipart(copy=False)
        address = sender_address(frames[-1]) if frames else ""
        caller = Caller(link is not self._roots, identity.bytes, address)
        epoch = 0
        try:
            epoch, message = unpack([frame.buffer for frame in frames])
            answer = self._roots_known.hear(caller, message) or self._answer(caller, epoch, message)
        except ProtocolError as error:  # perhaps another version: it can read the head of this
            log.warning("refused a message: %s", error)
            answer = self._welcome()
        except (DllamaError, OSError) as error:  # no process, no descriptor, no room for a file
            log.error("could not open a session: %s", error)
            answer = Refused(f"it could not start a process: {error}")
        except Exception as error:
            log.exception("could not serve a message")
            answer = Refused(f"{type(error).__name__}: {error}")
        if answer is not None:
            self._send(caller, epoch, answer)

    def _welcome(self) -> Welcome:
        return describe_machine(self._id, self._config.threads, self._config.release)

    def _answer(self, caller: Caller, epoch: int, message: Message) -> Message | None:
        if isinstance(message, Hello):
            if message.release != self._config.release:
                log.warning(
                    "a root runs dllama %s and this worker %s; install the same on both",
                    message.release,
                    self._config.release,
                )
            return self._welcome()
        if isinstance(message, OpenSession):
            return self._open(caller, epoch, message)
        if isinstance(message, CloseSession):
            if epoch not in self._sessions:
                return SessionEnded("there is no such session")
            self._sessions[epoch].end("the root closed it")
            return None
        raise ProtocolError(f"a daemon has no use for a {type(message).__name__} message")

    def _open(self, caller: Caller, epoch: int, asked: OpenSession) -> Message | None:
        self._end_sessions_of(asked.root)
        is_sound = 0 < asked.rank < asked.world_size <= MAX_WORLD_SIZE
        is_sound = is_sound and is_key(asked.key) == caller.is_encrypted
        if not is_sound or asked.sync_type not in list(SyncType) or epoch in self._sessions:
            return Refused(f"this is no session that can be opened: {asked}")
        available = available_memory()
        if asked.needed_bytes > available:
            return Refused(
                f"rank {asked.rank} needs {asked.needed_bytes / 1e9:.2f} GB of memory and "
                f"{available / 1e9:.2f} GB are free, with {len(self._sessions)} other sessions "
                "open; give this worker a smaller share (--shares), or end the others"
            )
        progress = SessionProcess.create_progress()
        config = SessionConfig(
            host=self._config.host,
            port=self.port,
            threads=self._config.threads,
            epoch=epoch,
            rank=asked.rank,
            world_size=asked.world_size,
            sync_type=asked.sync_type,
            progress_path=str(progress.path),
            report_endpoint=self._report_endpoint,
            root_key=asked.key,
        )
        session = SessionProcess(config, asked.root, caller)
        try:
            session.start(self._config.session_command, progress)
        except OSError:
            session.close()
            raise
        self._sessions[epoch] = session
        log.info(
            "a root opened a session: rank %d of %d, process %d",
            asked.rank,
            asked.world_size,
            session.pid,
        )
        return None

    def _end_sessions_of(self, root: str) -> None:
        """Ends the earlier sessions of a root, which it has given up."""
        for epoch, session in list(self._sessions.items()):
            if session.root == root:
                session.close()
                del self._sessions[epoch]
                log.info("ended an earlier session of the same root")

    def _receive_report(self) -> None:
        """Forwards the ports of a session to its root; records why a session failed."""
        try:
            epoch, message = unpack(self._reports.recv_multipart())
        except ProtocolError as error:
            log.warning("dropped a report: %s", error)
            return
        session = self._sessions.get(epoch)
        if session is None:
            return
        if isinstance(message, SessionReady):
            self._send(session.caller, epoch, message)
            self._send_heartbeat(epoch, session)
        elif isinstance(message, Failed):
            session.reason = message.reason

    def _reap_ended(self) -> None:
        for epoch, session in list(self._sessions.items()):
            if session.has_ended():
                while self._reports.poll(0):  # its last report may still be queued
                    self._receive_report()
                reason = session.why()
                session.close()
                del self._sessions[epoch]
                self._send(session.caller, epoch, SessionEnded(reason))
                log.info(
                    "session of rank %d ended: %s; %s",
                    session.config.rank,
                    reason,
                    "waiting" if not self._sessions else f"{len(self._sessions)} still open",
                )

    def _send_heartbeats(self) -> None:
        for epoch, session in self._sessions.items():
            self._send_heartbeat(epoch, session)

    def _tell_of_descriptors(self) -> None:
        """Says once that no root can connect for want of file descriptors, until there are some."""
        is_lacking = n_free() == 0
        if is_lacking and not self._has_told:
            log.warning(
                "all file descriptors of this process are taken: no root can connect before other "
                "connections end; raise the limit of open files (ulimit -n)"
            )
        self._has_told = is_lacking

    def _send_heartbeat(self, epoch: int, session: SessionProcess) -> None:
        heartbeat = Heartbeat(session.progress(), session.rss_bytes())
        self._send(session.caller, epoch, heartbeat)

    def _send(self, caller: Caller, epoch: int, message: Message) -> None:
        """Sends a message to a root; a root that is gone is ignored."""
        link = self._door.socket if caller.is_encrypted and self._door else self._roots
        try:
            link.send_multipart([caller.identity, *pack(message, epoch)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.debug("could not answer a root: %s", error)
