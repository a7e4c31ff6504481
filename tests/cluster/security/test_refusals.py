"""Whoever does not belong to a cluster is refused, over real sockets, each with its sentence."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.security.cluster_key import new_cluster_key
from cluster.security.keys import KEY_FILE, KeyPair, new_pair
from cluster.security.links import connect_encrypted
from cluster.security.settings import Security
from cluster.sockets import SESSION_PORTS, Address, endpoint
from cluster.wire.messages import (
    CloseSession,
    Hello,
    Introduced,
    Introduction,
    Message,
    OpenSession,
    Refused,
    pack,
    unpack,
)
from dllama import __version__
from dllama.errors import ClusterError, ConfigError
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.security.recording_proxy import RecordingProxy
from tests.cluster.steps import logits
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_worker_port

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]

KEY, OTHER = new_cluster_key(), new_cluster_key()
TOKENS = [5, 6, 7]


def worker_security(tmp_path: Path, **changes: object) -> dict[str, object]:
    return {"home": str(tmp_path / "worker"), "encrypts_loopback": True, **changes}


def root_security(tmp_path: Path) -> Security:
    return Security(home=tmp_path / "root", encrypts_loopback=True)


@pytest.mark.parametrize(
    ("root", "worker", "told", "logged"),
    [
        (KEY, OTHER, "has another cluster key than this root", "another cluster key"),
        (None, KEY, "roots that have the cluster key only", "the cluster key only"),
        (KEY, None, "was started without a cluster key", "without a cluster key"),
    ],
    ids=["another key", "key needed", "no key"],
)
def test_a_cluster_key_is_asked_for_on_one_machine_too(
    start_worker: StartWorker, make_runner: MakeRunner, root: object, worker: object,
    told: str, logged: str,
) -> None:  # fmt: skip
    text = "" if worker is None else worker.text()  # type: ignore[attr-defined]
    daemon = start_worker(security={"cluster_key": text})
    security = Security(cluster_key=root)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=told):
        make_runner([daemon], security=security).start()
    daemon.await_line("refused a root at 127.0.0.1")
    assert logged in daemon.output
    for key in (KEY, OTHER):
        assert key.text()[4:] not in daemon.output


def test_the_same_cluster_key_opens(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    plain = start_worker(security={"cluster_key": KEY.text()})
    one = make_runner([plain], security=Security(cluster_key=KEY))
    one.start()
    encrypted = start_worker(security=worker_security(tmp_path, cluster_key=KEY.text()))
    security = Security(cluster_key=KEY, encrypts_loopback=True, home=tmp_path / "root")
    other = make_runner([encrypted], security=security)
    other.start()
    assert (logits(one, TOKENS) == logits(other, TOKENS)).all()
    assert [path.name for path in (tmp_path / "root").iterdir()] == [KEY_FILE]  # no pins


@pytest.mark.parametrize("who", ["root", "worker"])
def test_one_side_that_does_not_encrypt_is_named(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path, who: str
) -> None:
    flags = worker_security(tmp_path) if who == "root" else {"encrypts": False}
    worker = start_worker(security=flags)
    security = Security(encrypts=False) if who == "root" else root_security(tmp_path)
    named = "this root" if who == "root" else rf"worker {worker.address}"
    with pytest.raises(ConfigError, match=f"{named} was started with --no-encrypt"):
        make_runner([worker], security=security).start()


def test_a_worker_with_a_new_key_is_refused_until_its_line_is_removed(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    port = own_worker_port()
    worker = start_worker(port=port, security=worker_security(tmp_path))
    first = make_runner([worker], security=root_security(tmp_path))
    first.start()
    first.close()
    worker.end()
    (tmp_path / "worker" / KEY_FILE).unlink()
    worker = start_worker(port=port, security=worker_security(tmp_path))
    runner = make_runner([worker], security=root_security(tmp_path))
    nodes = tmp_path / "root" / "known_nodes"
    with pytest.raises(ClusterError, match=rf"had another key .* remove line 2 of {nodes}"):
        runner.start()
    nodes.write_text("")
    runner.start()


def test_a_root_with_a_new_key_is_refused_until_its_line_is_removed(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    worker = start_worker(security=worker_security(tmp_path))
    first = make_runner([worker], security=root_security(tmp_path))
    first.start()
    first.close()
    (tmp_path / "root" / KEY_FILE).unlink()
    roots = tmp_path / "worker" / "known_roots"
    for refusal in (True, False):
        runner = make_runner([worker], security=root_security(tmp_path))
        if refusal:
            with pytest.raises(ClusterError, match=f"had another key .* remove line 2 of {roots}"):
                runner.start()
            roots.write_text("")
        else:
            runner.start()


class Stranger:
    """Someone on the network with a ZeroMQ socket and perhaps keys."""

    def __init__(
        self, address: Address, port: int, kind: int = zmq.DEALER,
        pair: KeyPair | None = None, server_key: str = "",
    ) -> None:  # fmt: skip
        self.context = zmq.Context()
        self.link = self.context.socket(kind)
        self.link.linger = 0
        self.link.setsockopt(zmq.IMMEDIATE, 1)
        self.link.sndtimeo = self.link.rcvtimeo = 1_500
        if pair is not None:
            connect_encrypted(self.link, pair, server_key)
        self.link.connect(endpoint(address.host, port))

    def ask(self, message: Message) -> Message:
        self.link.rcvtimeo = 10_000
        self.link.send_multipart(pack(message))
        return unpack(self.link.recv_multipart())[1]

    def gets_in(self) -> bool:
        """Whether there is a connection on which anything can be said."""
        try:
            self.link.send(b"words")
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        self.context.destroy(linger=0)


def introduction(key: str) -> Introduction:
    return Introduction(__version__, [], key, "nonce", True, False)


def test_strangers_get_into_no_port(
    start_worker: StartWorker, make_runner: MakeRunner, tmp_path: Path
) -> None:
    worker = start_worker(security=worker_security(tmp_path))
    runner = make_runner([worker], security=root_security(tmp_path))
    runner.start()
    before = logits(runner, TOKENS)
    knocker = Stranger(worker.address, worker.address.port)
    found = knocker.ask(introduction(""))
    knocker.close()
    assert isinstance(found, Introduced)
    assert runner._session is not None
    (ready,) = runner._session._meeting.ready
    targets = [
        (found.port, zmq.DEALER, found.key),
        (ready.control_port, zmq.DEALER, ready.key),
        (ready.mesh_port, zmq.PUSH, ready.key),
    ]
    strangers = []
    for port, kind, key in targets:  # who knows the server's key, and who does not; and in plain
        for server_key in (key, new_pair().public, None):
            pair = None if server_key is None else new_pair()
            stranger = Stranger(worker.address, port, kind, pair, server_key or "")
            strangers.append((port, server_key, stranger))
    time.sleep(1.0)
    for port, server_key, stranger in strangers:
        stranger.link.sndtimeo = 100
        assert not stranger.gets_in(), (port, server_key)
        stranger.close()
    assert (logits(runner, TOKENS) == before).all()


def test_plain_words_bring_nothing_at_a_port_that_encrypts(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(security=worker_security(tmp_path))
    stranger = Stranger(worker.address, worker.address.port)
    for message in (Hello(__version__), OpenSession("me", 1, 2, "f32", 0), CloseSession()):
        answer = stranger.ask(message)
        assert isinstance(answer, Refused) and "encrypts its links" in answer.reason
    stranger.link.send(b"noise")  # perhaps another version
    answer = unpack(stranger.link.recv_multipart())[1]
    assert isinstance(answer, Introduced) and (answer.release, answer.key) == (__version__, "")
    stranger.close()
    assert not worker.sessions()


GREETING_BYTES = 64  # rfc.zeromq.org/spec/23; a command with its flags and length follows


def say(port: int, stream: bytes, patience_s: float) -> None:
    """Sends a recorded stream, and reads until nothing more comes. As libzmq ends whoever speaks
    before it has sent its own part of the handshake, each part waits for the one before."""
    ready = GREETING_BYTES + 2 + stream[GREETING_BYTES + 1]
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as link:
        link.settimeout(patience_s)
        n_heard = 0
        for part, n_answer in (
            (stream[:GREETING_BYTES], GREETING_BYTES),
            (stream[GREETING_BYTES:ready], GREETING_BYTES + 1),
            (stream[ready:], 1 << 30),
        ):
            link.sendall(part)
            while n_heard < n_answer and (data := link.recv(4096)):
                n_heard += len(data)


def test_what_was_recorded_opens_nothing_when_it_is_sent_again(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """A cluster key and encryption; somebody sends the very bytes that a true root sent."""
    near, port = "127.0.0.2", own_worker_port()
    worker = start_worker(port=port, security=worker_security(tmp_path, cluster_key=KEY.text()))
    security = Security(cluster_key=KEY, encrypts_loopback=True, home=tmp_path / "root")
    config = ClusterConfig([Address(near, port)], 8, 64, 1, security=security)
    with RecordingProxy(near, "127.0.0.1", range(port, port + SESSION_PORTS + 1)) as proxy:
        runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
        try:
            runner.start()
        finally:
            runner.close()
        said = [each for each in proxy.streams[::2] if len(each) > GREETING_BYTES + 1]
    assert any(b"Introduction" in stream and b"Proof" in stream for stream in said)
    worker.await_no_session()
    for stream in said:
        for target in (port, port + SESSION_PORTS):
            say(target, stream, 1.0)
    worker.await_line("replays what was said before")
    assert not worker.sessions()
