"""The daemon answers whatever arrives, and goes on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import psutil
import pytest
import zmq

from cluster.machine import describe_machine
from cluster.security.cluster_key import new_cluster_key
from cluster.security.epoch_links import connect_plain
from cluster.sockets import endpoint
from cluster.wire.codec import PROTOCOL_VERSION
from cluster.wire.messages import (
    CloseSession,
    Credit,
    Heartbeat,
    Hello,
    Join,
    Loaded,
    Message,
    OpenSession,
    Refused,
    SessionEnded,
    SessionReady,
    Welcome,
    pack,
    unpack,
)
from cluster.worker.daemon import Worker
from cluster.worker.worker_config import WorkerConfig
from dllama import __version__
from dllama.errors import ConfigError, ProtocolError
from tests.cluster.worker_process import HOUSE, WorkerProcess

KEY = new_cluster_key().text()
StartWorker = Callable[..., WorkerProcess]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


class Root:
    """A root that says what a test wants."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.context = zmq.Context()
        self.link = self.context.socket(zmq.DEALER)
        self.link.linger = 0
        self.link.rcvtimeo = 10_000
        self.link.connect(endpoint(worker.address.host, worker.address.port))

    def say(self, message: Message, epoch: int = 0) -> None:
        self.link.send_multipart(pack(message, epoch))

    def open(self, root: str, rank: int, world_size: int, *, epoch: int, needed: int = 0) -> None:
        """Opens a session as a root does: the Welcome's nonce is quoted."""
        self.say(Hello(__version__))
        welcome = self.hear()
        assert isinstance(welcome, Welcome) and welcome.nonce
        self.say(OpenSession(root, rank, world_size, "f32", needed, welcome.nonce), epoch)

    def hear(self, *, but: type = Heartbeat) -> Message:
        while True:
            _, message = unpack(self.link.recv_multipart())
            if not isinstance(message, but):
                return message

    def close(self) -> None:
        self.context.destroy()


def test_a_cache_that_cannot_be_used_is_told_at_the_start(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    worker = start_worker(cache_dir=str(tmp_path / "file"), cache_bytes=1 << 30)
    await_line(worker, "weights are not kept in")
    assert worker.process.poll() is None
    await_line(worker, "waiting")


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({}, "asks for no key, links are plain (of this machine only)"),
        ({"encrypts_loopback": True}, "asks for no key, links are encrypted"),
        ({"cluster_key": KEY, "encrypts": False}, "asks for the cluster key, links are plain"),
    ],
)
def test_the_first_line_tells_whom_it_lets_in(
    start_worker: StartWorker, tmp_path: Path, security: dict[str, object], said: str
) -> None:
    worker = start_worker(security={"home": str(tmp_path), **security})
    await_line(worker, said)


def await_line(worker: WorkerProcess, line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in worker.output:
        assert time.monotonic() < deadline, worker.output
        time.sleep(0.02)


@pytest.fixture
def worker(start_worker: StartWorker) -> WorkerProcess:
    return start_worker()


@pytest.fixture
def root(worker: WorkerProcess) -> Iterator[Root]:
    made = Root(worker)
    yield made
    made.close()


def test_hello_is_answered_with_what_the_node_is(root: Root) -> None:
    root.say(Hello(__version__))
    welcome = root.hear()
    assert isinstance(welcome, Welcome)
    here = describe_machine("d", threads=1)
    assert (welcome.release, welcome.threads, welcome.machine, welcome.cpu) == (
        (here.release, 1, here.machine, here.cpu)
    )
    assert welcome.memory_total == here.memory_total and welcome.memory_available > 0


def test_a_root_of_another_protocol_can_read_both_versions(root: Root) -> None:
    hello = {"v": 99, "e": 0, "k": "Hello2", "a": [], "release": "9.9", "news": [1]}
    root.link.send(msgpack.packb(hello))
    head = msgpack.unpackb(root.link.recv())
    assert head["v"] == PROTOCOL_VERSION and head["release"] == __version__


def test_noise_on_the_port_changes_nothing(worker: WorkerProcess, root: Root) -> None:
    address = (worker.address.host, worker.address.port)
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000, b""):
        with socket.create_connection(address) as plain:
            plain.sendall(noise)
    for frames in ([b""], [b"noise"], [b""] * 17, [b"\x00" * 1000, b"x"], [msgpack.packb([1])]):
        root.link.send_multipart(frames)
        assert isinstance(root.hear(), Welcome)  # perhaps it speaks another version
    root.say(Credit(1))
    assert isinstance(root.hear(), Welcome)
    root.say(Hello(__version__))
    assert isinstance(root.hear(), Welcome)
    assert worker.process.poll() is None


def test_a_message_too_long_is_not_taken_in(worker: WorkerProcess, root: Root) -> None:
    root.link.send(bytes(10 << 20))
    other = Root(worker)
    other.say(Hello(__version__))
    assert isinstance(other.hear(), Welcome)
    other.close()


def test_a_session_reports_its_ports_beats_and_ends(worker: WorkerProcess, root: Root) -> None:
    root.open("me", 1, 2, epoch=5)
    ready = root.hear()
    assert isinstance(ready, SessionReady)
    ports = range(worker.address.port + 1, worker.address.port + 65)
    assert {ready.control_port, ready.mesh_port} <= set(ports)
    assert [s.pid for s in worker.sessions()] == [ready.pid]
    beats = [root.hear(but=SessionReady)]
    while beats[-1] == beats[0] and len(beats) < 10:  # on a busy machine the first are alike
        beats.append(root.hear(but=SessionReady))
    assert all(isinstance(b, Heartbeat) and b.rss_bytes > 0 for b in beats)
    assert beats[0] != beats[-1]  # the session's loop runs
    root.say(CloseSession(), epoch=5)
    assert root.hear() == SessionEnded("the root closed it")
    assert not worker.sessions()


def test_what_cannot_be_opened_is_refused_with_a_sentence(
    worker: WorkerProcess, root: Root
) -> None:
    root.open("me", 1, 2, epoch=5, needed=1 << 60)
    refused = root.hear()
    assert isinstance(refused, Refused) and "GB of memory are needed and" in refused.reason
    for rank, world_size, epoch in ((0, 2, 6), (2, 2, 6), (1, 9999, 6), (1, 2, 0)):
        root.open("me", rank, world_size, epoch=epoch)
        assert isinstance(root.hear(), Refused)
    root.say(Hello(__version__))
    welcome = root.hear()
    assert isinstance(welcome, Welcome)
    root.say(OpenSession("me", 1, 2, "no type", 0, welcome.nonce), epoch=6)
    assert isinstance(root.hear(), Refused)
    root.say(CloseSession(), epoch=7)
    assert root.hear() == SessionEnded("there is no such session")
    assert not worker.sessions()


def test_a_root_that_opens_again_ends_what_it_opened_before(
    worker: WorkerProcess, root: Root
) -> None:
    root.open("me", 1, 2, epoch=5)
    assert isinstance(root.hear(), SessionReady)
    root.open("me", 1, 2, epoch=6)
    assert isinstance(root.hear(), SessionReady)
    root.open("somebody else", 1, 2, epoch=7)
    assert isinstance(root.hear(), SessionReady)
    assert len(worker.sessions()) == 2


def test_an_epoch_that_another_root_uses_is_refused(worker: WorkerProcess, root: Root) -> None:
    root.open("me", 1, 2, epoch=5)
    assert isinstance(root.hear(), SessionReady)
    root.open("somebody else", 1, 2, epoch=5)
    assert isinstance(root.hear(), Refused)
    assert len(worker.sessions()) == 1


def test_a_session_takes_no_word_from_a_stranger(worker: WorkerProcess, root: Root) -> None:
    """Nor does noise end it: only who knows the epoch is heard."""
    root.open("me", 1, 2, epoch=5)
    ready = root.hear()
    assert isinstance(ready, SessionReady)
    with root.context.socket(zmq.DEALER) as stranger:
        connect_plain(stranger, epoch=5)
        stranger.connect(endpoint("127.0.0.1", ready.control_port))
        for frames in ([b"noise"], pack(Loaded(), epoch=6)):
            stranger.send_multipart(frames)
        stranger.send_multipart(pack(Credit(1), epoch=5))
        stranger.rcvtimeo = 5_000
        epoch, failed = unpack(stranger.recv_multipart())
    assert epoch == 5 and "sent Credit where Join was due" in str(failed)
    ended = root.hear()
    assert isinstance(ended, SessionEnded) and "Join was due" in ended.reason


@pytest.mark.parametrize("epoch", [0, 6])
def test_a_session_takes_nothing_in_from_who_does_not_know_its_epoch(
    worker: WorkerProcess, root: Root, epoch: int
) -> None:
    """Neither for its root nor for its mesh: whatever a stranger sends, it keeps."""
    root.open("me", 1, 2, epoch=5)
    ready = root.hear()
    assert isinstance(ready, SessionReady)
    for kind, port in ((zmq.DEALER, ready.control_port), (zmq.PUSH, ready.mesh_port)):
        with root.context.socket(kind) as stranger:
            stranger.immediate, stranger.sndtimeo = 1, 1_000
            if epoch:
                connect_plain(stranger, epoch)
            stranger.connect(endpoint("127.0.0.1", port))
            with pytest.raises(zmq.Again):
                stranger.send(b"let me in")
    root.say(CloseSession(), epoch=5)
    assert root.hear() == SessionEnded("the root closed it")


def test_a_session_is_told_of_all_its_ranks(worker: WorkerProcess, root: Root) -> None:
    root.open("me", 1, 3, epoch=5)
    ready = root.hear()
    assert isinstance(ready, SessionReady)
    with root.context.socket(zmq.DEALER) as link:
        connect_plain(link, epoch=5)
        link.connect(endpoint("127.0.0.1", ready.control_port))
        link.send_multipart(
            pack(Join(["tcp://127.0.0.1:1"] * 2, ["tcp://127.0.0.1:1"] * 2), epoch=5)
        )
        ended = root.hear()
    assert isinstance(ended, SessionEnded) and "named 2 ranks for a session of 3" in ended.reason


def test_a_port_in_use_is_said(worker: WorkerProcess) -> None:
    code = (
        "from cluster.worker.daemon import Worker\n"
        "from cluster.worker.worker_config import WorkerConfig\n"
        f"Worker(WorkerConfig(threads=1, host='127.0.0.1', port={worker.address.port})).start()"
    )
    tried = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, timeout=30
    )
    assert f"port {worker.address.port} is in use" in tried.stderr


def test_a_daemon_ends_cleanly_when_asked(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0


def test_protocol_errors_name_no_internals() -> None:
    with pytest.raises(ProtocolError, match="unknown kind 'Dance'"):
        unpack([msgpack.packb({"v": PROTOCOL_VERSION, "e": 0, "k": "Dance", "a": []})])


def test_a_root_that_did_not_hear_the_welcome_gets_no_session(
    worker: WorkerProcess, root: Root
) -> None:
    for nonce in ("", "0" * 32):
        root.say(OpenSession("me", 1, 2, "f32", 0, nonce), epoch=5)
        refused = root.hear()
        assert isinstance(refused, Refused) and "nonce of this daemon's Welcome" in refused.reason
    assert not worker.sessions()


def test_strangers_make_room_where_descriptors_are_lacking(worker: WorkerProcess) -> None:
    """They hold them all, and stay; a root is answered, and one line says so."""
    resource = pytest.importorskip("resource", reason="only Linux sets another process's limits")
    n_open = psutil.Process(worker.process.pid).num_fds()
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (n_open + 9, n_open + 9))
    address = (worker.address.host, worker.address.port)
    strangers = [socket.create_connection(address) for _ in range(12)]
    root = Root(worker)
    root.say(Hello(__version__))
    assert isinstance(root.hear(), Welcome)
    root.close()
    for stranger in strangers:
        stranger.close()
    assert worker.output.count("all file descriptors") == 1


def test_a_port_without_room_for_sessions_is_refused() -> None:
    worker = Worker(WorkerConfig(threads=1, host="127.0.0.1", port=65_500))
    with pytest.raises(ConfigError, match=r"--port 65500 leaves no ports.*one up to 65471"):
        worker.start()
