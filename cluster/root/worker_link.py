"""The root's side of one worker: a link to its daemon and one to its session process.

It sends, and keeps what comes back in fields; whoever needs an answer waits for it elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from typing import TypeVar

import zmq

from cluster.root.reach import CHECK_PORT, NO_WORKER
from cluster.security.epoch_links import connect_plain
from cluster.security.keys import KeyPair
from cluster.security.links import connect_encrypted
from cluster.security.root_side import RootSide
from cluster.sockets import Context, DisconnectWatch, Socket, endpoint, make_socket
from cluster.wire.codec import epoch_of
from cluster.wire.measure_messages import Measured
from cluster.wire.messages import (
    Admitted,
    CloseSession,
    Credit,
    Draining,
    Failed,
    Heartbeat,
    Introduced,
    Joined,
    KvDone,
    Loaded,
    Message,
    RankStats,
    Refused,
    SessionEnded,
    SessionReady,
    Want,
    Welcome,
    pack,
    unpack,
)
from dllama.errors import ClusterError, PeerLost, ProtocolError

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 20  # of any message of a worker
MAX_DRAINED = 256  # messages of a link that are read before the other links have their turn
MAX_REASON_CHARS = 2_000
HEARTBEAT_TIMEOUT_S = 3.0  # six heartbeats of the daemon

M = TypeVar("M", bound=Message)
ANSWERS = (Admitted, SessionReady, Joined, Measured, Loaded, KvDone, RankStats)
"""Messages that somebody waits for; a Welcome is one too, and read even without an epoch."""


class WorkerLink:
    """The root's links to one worker, and the last it has heard of it."""

    def __init__(self, rank: int, side: RootSide, context: Context) -> None:
        self.rank = rank
        self.address = side.worker
        self.epoch = 0
        self.credits = 0  # chunks taken in that the feeder does not know of yet
        self._wants: list[list[int]] = []
        self.rss_bytes = 0
        self.hang_timeout_s = 0.0  # 0: no limit
        self.side = side  # the root's part of the introduction
        self._context = context
        self._answers: dict[type, Message] = {}
        self.is_draining = False  # it is to end, and would like to be planned without
        self.way_hint = ""  # what to do where it does not reach the root
        self.lost_rank = -1  # the rank that this worker's rank reports lost
        self._failure = ""
        self._progress = -1
        self._heard_at = self._progressed_at = time.monotonic()
        self._session: Socket | None = None
        self._daemon = self._connect(self.address.port)
        self._watch = DisconnectWatch(self._daemon)

    def _connect(
        self, port: int, pair: KeyPair | None = None, server_key: str = "", epoch: int = 0
    ) -> Socket:
        made: Socket | None = None
        try:
            made = make_socket(
                self._context, zmq.DEALER, host=self.address.host,
                max_message_bytes=MAX_MESSAGE_BYTES,
            )  # fmt: skip
            made.setsockopt(zmq.IMMEDIATE, 0)  # the first words wait for the connection
            if pair is not None:
                connect_encrypted(made, pair, server_key)
            elif epoch:
                connect_plain(made, epoch)
            made.connect(endpoint(self.address.host, port))
        except zmq.ZMQError as error:
            if made is not None:
                made.close()
            raise ClusterError(
                f"no connection to worker {self.address} can be begun: {error}. Check its address, "
                "and how many files this process may open (ulimit -n)"
            ) from None
        return made

    def encrypt(self, pair: KeyPair) -> None:
        """Goes on with the daemon over an encrypted link, once both have been introduced."""
        self._close_daemon()
        found = self.side.introduced
        self._daemon = self._connect(found.port, pair, found.key)
        self._watch = DisconnectWatch(self._daemon)

    def sockets(self) -> list[Socket]:
        return [self._daemon] if self._session is None else [self._daemon, self._session]

    def tell_daemon(self, message: Message) -> None:
        self._send(self._daemon, pack(message, self.epoch))

    def open_session_link(self, ready: SessionReady, pair: KeyPair | None = None) -> None:
        """Connects to the session, encrypted where there is a pair of keys to do so with."""
        self._session = self._connect(ready.control_port, pair, ready.key, self.epoch)

    def tell_session(self, message: Message) -> None:
        self.send_session(pack(message, self.epoch))

    def send_session(self, frames: Iterable[bytes | bytearray | memoryview]) -> None:
        """Sends frames that are packed already, such as a step that goes to all ranks."""
        assert self._session is not None, "open_session_link() comes first"
        self._send(self._session, frames)

    def _send(self, link: Socket, frames: Iterable[bytes | bytearray | memoryview]) -> None:
        try:
            link.send_multipart(list(frames))
        except zmq.Again:
            raise self.lost("takes nothing more; it hangs, or the network is down") from None

    def answer(self, kind: type[M]) -> M | None:
        """Returns the last message of a kind and forgets it; None if none has come."""
        message = self._answers.pop(kind, None)
        return message if isinstance(message, kind) else None

    def take_wants(self) -> list[list[int]]:
        """Returns the pieces of weights that the rank has asked for since the last call, one list
        for each message."""
        wants, self._wants = self._wants, []
        return wants

    def lost(self, what: str) -> PeerLost:
        """Returns the PeerLost of this worker; `what` it did ends the sentence."""
        where = f"worker {self.address}" + f" (rank {self.rank})" * bool(self.epoch)
        return PeerLost(f"{where} {what}", rank=self.rank, host=str(self.address))

    def drain(self) -> None:
        """Reads and keeps the messages that have arrived, up to MAX_DRAINED of each link.

        Raises ProtocolError for another version, ClusterError where the worker refused.
        """
        for link in self.sockets():
            for _ in range(MAX_DRAINED):
                try:
                    frames = link.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                try:
                    epoch, message = unpack(frames)
                except ProtocolError as error:
                    is_stranger = not self.side.is_introduced and epoch_of(frames) is None
                    why = f"{NO_WORKER}; {CHECK_PORT}" if is_stranger else str(error)
                    raise ProtocolError(f"worker {self.address}: {why}") from None
                if epoch in (0, self.epoch):
                    self._keep(message)

    def _keep(self, message: Message) -> None:
        now = time.monotonic()
        if isinstance(message, Heartbeat):
            self._heard_at = now
            self.rss_bytes = message.rss_bytes
            if message.progress != self._progress:
                self._progress, self._progressed_at = message.progress, now
        elif isinstance(message, Introduced):
            if self.side.is_introduced:
                raise ProtocolError(f"worker {self.address} said twice who it is")
            self._check_release(message)
            self.tell_daemon(self.side.answer(message))
        elif isinstance(message, Welcome):
            self._answers[Welcome] = message
        elif isinstance(message, Credit):
            self.credits += message.chunks
        elif isinstance(message, Want):
            self._wants.append(message.pieces.tolist())
        elif isinstance(message, Refused):
            what = f"refused: {readable(message.reason)}"
            if self.epoch:  # a session goes on without it; one that was only greeted is not lost
                raise self.lost(what)
            raise ClusterError(self.side.complaint or f"worker {self.address} {what}")
        elif isinstance(message, Draining):
            self.is_draining = True
        elif isinstance(message, Failed):
            self.lost_rank = message.lost_rank
            if self.lost_rank < 0:
                self._failure = f"failed: {readable(message.reason)}"
            elif self.lost_rank == 0:
                self._failure = f"cannot join: {readable(message.reason)}. {self.way_hint}"
        elif isinstance(message, SessionEnded):
            self._failure = self._failure or f"ended its session: {readable(message.reason)}"
        elif isinstance(message, ANSWERS):
            self._answers[type(message)] = message
        else:
            raise ProtocolError(f"worker {self.address} sent a {type(message).__name__}")

    def _check_release(self, found: Introduced) -> None:
        own = self.side.introduction.release
        if found.release != own:
            log.warning(
                "worker %s runs dllama %s and this root %s; they speak the same protocol and go on",
                self.address,
                found.release,
                own,
            )

    def check_side(self) -> None:
        """Raises ClusterError for a worker that is not to be trusted. That is left until it has
        heard the root's proof, or had time to: its log is to say what is wrong too."""
        if self.side.complaint:
            raise ClusterError(self.side.complaint)

    def watch_from_now(self) -> None:
        """Restarts the timeouts of check()."""
        self._heard_at = self._progressed_at = time.monotonic()

    def check(self) -> None:
        """Raises PeerLost where the worker failed, fell silent, or stands still."""
        if self._failure:
            raise self.lost(self._failure)
        if self._watch.is_lost():  # a new connection would be nobody's that the daemon knows
            raise self.lost("closed its link: its dllama-worker ended, or the network cut it")
        now = time.monotonic()
        if now - self._heard_at > HEARTBEAT_TIMEOUT_S:
            raise self.lost(
                f"was silent for {now - self._heard_at:.1f} s: its dllama-worker hangs, or the "
                "network is down"
            )
        if 0 < self.hang_timeout_s < now - self._progressed_at:
            raise self.lost(
                f"computed nothing for {now - self._progressed_at:.1f} s: its process hangs, or "
                "is swapping"
            )

    def close(self) -> None:
        """Asks the worker to end the session, without waiting for it, and closes both links."""
        if self.epoch:
            self._daemon.setsockopt(zmq.LINGER, 500)
            with contextlib.suppress(zmq.Again):  # then it sees the links close
                self._daemon.send_multipart(pack(CloseSession(), self.epoch), zmq.NOBLOCK)
        if self._session is not None:
            self._session.close()
        self._close_daemon()

    def _close_daemon(self) -> None:
        self._watch.close()
        self._daemon.close()


def readable(text: str) -> str:
    """Returns a worker's text as one line of bounded length: it goes into logs and answers."""
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_REASON_CHARS])
    return line + "..." * (len(text) > MAX_REASON_CHARS)
