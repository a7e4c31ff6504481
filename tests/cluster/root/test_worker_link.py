"""What a root makes of a worker's messages, without a worker: a ROUTER says what a test wants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import zmq

from cluster.machine import describe_machine
from cluster.root import worker_link
from cluster.root.worker_link import HEARTBEAT_TIMEOUT_S, MAX_DRAINED, WorkerLink
from cluster.security.root_side import root_sides
from cluster.security.settings import Security
from cluster.sockets import Address
from cluster.wire.messages import (
    Credit,
    Failed,
    Heartbeat,
    Hello,
    Introduced,
    Message,
    Refused,
    SessionEnded,
    Welcome,
    pack,
)
from dllama import __version__
from dllama.errors import ClusterError, PeerLost, ProtocolError

EPOCH = 5
pytestmark = pytest.mark.usefixtures("no_leaks")


class Daemon:
    """The far end of a WorkerLink, and the clock that the link looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(worker_link, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.ROUTER)
        self._socket.rcvtimeo = 10_000
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        (side,) = root_sides(Security(), [Address("127.0.0.1", port)], __version__, lambda: "n")
        self.link = WorkerLink(1, side, self.context)
        self.link.tell_daemon(Hello(__version__))
        self._root, *_ = self._socket.recv_multipart()
        self.link.epoch = EPOCH

    def say(self, *messages: Message, epoch: int = EPOCH) -> None:
        """Sends messages; the link has read them when this returns."""
        for message in messages:
            self._socket.send_multipart([self._root, *pack(message, epoch)])
        self._socket.send_multipart([self._root, *pack(describe_machine("d", 1))])
        while self.link.answer(Welcome) is None:
            [daemon] = self.link.sockets()
            assert daemon.poll(10_000)
            self.link.drain()

    def leave(self) -> None:
        self._socket.close(linger=0)

    def close(self) -> None:
        self.link.close()
        self.context.destroy(linger=0)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon(monkeypatch)
    yield made
    made.close()


def test_messages_of_another_epoch_are_dropped(daemon: Daemon) -> None:
    daemon.say(SessionEnded("long ago"), Failed("long ago", -1), Credit(3), epoch=EPOCH - 1)
    daemon.link.check()
    assert daemon.link.credits == 0
    daemon.say(SessionEnded("now"))
    with pytest.raises(PeerLost, match="ended its session: now"):
        daemon.link.check()


def test_the_first_reason_of_a_failure_is_kept(daemon: Daemon) -> None:
    daemon.say(Failed("out of memory", -1), SessionEnded("its process ended with code 1"))
    with pytest.raises(PeerLost, match="failed: out of memory"):
        daemon.link.check()


def test_a_worker_that_lost_another_rank_has_not_failed_itself(daemon: Daemon) -> None:
    daemon.say(Failed("rank 2 closed its link", 2))
    daemon.link.check()
    assert daemon.link.lost_rank == 2


def test_credits_add_up(daemon: Daemon) -> None:
    daemon.say(Credit(1), Credit(2))
    assert daemon.link.credits == 3


def test_silence_is_a_loss_and_a_heartbeat_ends_it(daemon: Daemon) -> None:
    daemon.link.watch_from_now()
    daemon.now += HEARTBEAT_TIMEOUT_S - 0.1
    daemon.link.check()
    daemon.say(Heartbeat(1, 2))
    assert daemon.link.rss_bytes == 2
    daemon.now += HEARTBEAT_TIMEOUT_S - 0.1
    daemon.link.check()
    daemon.now += 0.2
    with pytest.raises(PeerLost, match=r"was silent for 3\.1 s"):
        daemon.link.check()


def test_heartbeats_without_progress_are_a_loss(daemon: Daemon) -> None:
    daemon.link.watch_from_now()
    daemon.link.hang_timeout_s = 4.0
    for progress in (7, 8, 8, 8):
        daemon.say(Heartbeat(progress, 0))
        daemon.link.check()
        daemon.now += 1.4
    daemon.say(Heartbeat(8, 0))
    with pytest.raises(PeerLost, match=r"computed nothing for 4\.2 s"):
        daemon.link.check()
    daemon.link.hang_timeout_s = 0.0
    daemon.link.check()


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        (Refused("no room"), ClusterError, "refused: no room"),
        (Hello(__version__), ProtocolError, "sent a Hello"),
    ],
    ids=["refused", "no use for it"],
)
def test_what_is_refused_or_makes_no_sense_is_said(
    daemon: Daemon, message: Message, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        daemon.say(message)


def test_a_workers_words_are_one_line_of_bounded_length(daemon: Daemon) -> None:
    daemon.say(Failed("\x1b[2Jno\nmemory" + "x" * 100_000, -1))
    with pytest.raises(PeerLost, match=r"failed:  \[2Jno memoryx+\.\.\.$") as lost:
        daemon.link.check()
    assert len(str(lost.value)) < 3_000


def test_a_worker_that_never_stops_talking_does_not_keep_the_root(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain ends after MAX_DRAINED messages, although there are more."""
    [link] = daemon.link.sockets()

    class Endless:
        n_read = 0

        def recv_multipart(self, flags: int) -> object:
            self.n_read += 1
            return pack(Heartbeat(1, 2), EPOCH)

    endless = Endless()
    monkeypatch.setattr(daemon.link, "sockets", lambda: [endless])
    daemon.link.drain()
    assert endless.n_read == MAX_DRAINED and daemon.link.rss_bytes == 2 and link.poll(0) == 0


def test_a_worker_says_once_who_it_is(daemon: Daemon) -> None:
    """A key that came later would be pinned in place of the one it has shown to hold."""
    found = Introduced(__version__, [], "", "m", "n", False, False, 0, "")
    daemon.say(found)
    with pytest.raises(ProtocolError, match="said twice who it is"):
        daemon.say(found)


def test_a_daemon_that_is_gone_is_lost_at_once(daemon: Daemon) -> None:
    """Before any timeout: the clock stands still."""
    daemon.say()
    daemon.link.check()
    daemon.leave()
    with pytest.raises(PeerLost, match="closed its link: its dllama-worker ended"):
        for _ in range(1000):
            daemon.link.check()
            time.sleep(0.01)
