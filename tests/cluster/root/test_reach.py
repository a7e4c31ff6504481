"""Workers that are named twice, not at all, or are something else: each is named for what it is."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api.engines.in_process import InProcessEngineClient
from cluster.root import reach
from cluster.root.reach import check_names, why_silent
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from dllama.cli.server_address import ServerAddress
from dllama.errors import ConfigError, DllamaError, PeerLost, ProtocolError
from tests.api.listening import listening_model
from tests.api.serving import says, served
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.fuzz.honest import hello
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.worker_process import WorkerProcess
from tests.scripted_runner import ScriptedEngine

pytestmark = pytest.mark.usefixtures("no_leaks")


def start(*workers: Address) -> None:
    config = ClusterConfig(workers, 8, 64, 1, hello_timeout_s=0.5)
    runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
    try:
        runner.start()
    finally:
        runner.close()


@contextmanager
def listener(words: bytes = b"") -> Iterator[Address]:
    """Something that accepts a connection, perhaps says something, and is no worker."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            server.settimeout(10)
            link, _ = server.accept()
            with link, suppress(OSError):  # the other end leaves as it likes
                link.sendall(words)
                link.settimeout(10)
                link.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        yield Address("127.0.0.1", server.getsockname()[1])
        thread.join()


@pytest.mark.parametrize("other", ["localhost", "127.0.0.2"])
def test_one_worker_under_two_names_is_told_by_both(
    start_worker: Callable[..., WorkerProcess], other: str
) -> None:
    """The one name has the other's address; the other is another address of the same daemon."""
    address = start_worker(host="0.0.0.0").address
    names = rf"127\.0\.0\.1:{address.port} and {other}:{address.port} are two names of one worker"
    with pytest.raises(ConfigError, match=names):
        start(address, Address(other, address.port))


def test_a_name_that_leads_nowhere_is_told() -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"'no-such-host.invalid' has no address .*--workers"):
        start(Address("no-such-host.invalid"))
    assert time.monotonic() - begun > 0.5, "a container may come up a moment later"
    with pytest.raises(ConfigError, match="is no name of a machine"):
        check_names([Address("a..b")], 0.0)


def test_a_name_may_get_its_address_late(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [socket.gaierror(-2, "unknown"), socket.gaierror(-2, "unknown")]
    known = socket.getaddrinfo

    def late(*args: object) -> object:
        if answers:
            raise answers.pop()
        return known("127.0.0.1", *args[1:])  # type: ignore[arg-type]

    monkeypatch.setattr(reach, "RESOLVE_AGAIN_S", 0.0)
    monkeypatch.setattr(reach.socket, "getaddrinfo", late)
    check_names([Address("worker1")], 5.0)
    assert not answers


def test_a_name_of_ipv6_alone_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def ipv6_alone(host: str, port: object, family: int, *more: object) -> object:
        if family != socket.AF_INET6:
            raise socket.gaierror(-5, "no address of that kind")
        return [(family, 1, 6, "", ("fd00::7", 0, 0, 0))]

    monkeypatch.setattr(reach.socket, "getaddrinfo", ipv6_alone)
    with pytest.raises(ConfigError, match=r"IPv6 address only; write \[fd00::7\]"):
        check_names([Address("pi")], 5.0)


def test_a_port_on_which_nothing_listens_here() -> None:
    with pytest.raises(
        PeerLost, match=r"worker 127.0.0.1:9 did not answer .*nothing listens .*this machine"
    ):
        start(Address("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "is no dllama-worker, or one without file descriptors left: it hangs up; check"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no dllama-worker but an HTTP server; check"),
        (b"SSH-2.0-x\r\n", "is no dllama-worker; check the port"),
    ],
)
def test_what_is_no_worker_is_told(words: bytes, said: str) -> None:
    with listener(words) as address:
        assert said in why_silent(address)


def test_a_worker_that_hangs_is_told() -> None:
    with listener(b"\xff" + bytes(8) + b"\x7f") as address:
        assert "listens but says nothing" in why_silent(address)


def test_a_server_that_waits_to_be_asked_is_told_from_a_stopped_worker() -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            address = Address("127.0.0.1", http.server_port)
            assert "is no dllama-worker; check the port" in why_silent(address)
        finally:
            http.shutdown()
            thread.join()


def test_a_worker_that_is_stopped_is_told_and_takes_no_offence(
    start_worker: Callable[..., WorkerProcess],
) -> None:
    """The system takes connections for it; when it wakes it finds ours gone, and says nothing."""
    worker = start_worker()
    worker.process.send_signal(signal.SIGSTOP)
    told = r"did not answer .* takes connections and nobody answers\. .*stopped \(SIGSTOP\)"
    with pytest.raises(PeerLost, match=told):
        start(worker.address)
    worker.process.send_signal(signal.SIGCONT)
    hello(worker.address)()
    assert "rules of ZMTP" not in worker.output and "no hello" not in worker.output


def test_a_server_in_place_of_a_worker_is_told_at_the_start() -> None:
    """It answers a greeting that it cannot read with what ZeroMQ takes for a message."""
    engine = InProcessEngineClient(ScriptedEngine(says("no")))
    told = pytest.raises(ProtocolError, match=r"what listens there is no dllama-worker; check the")
    with listening_model(served(engine)) as url, told:
        start(Address("127.0.0.1", int(url.rpartition(":")[2])))


def test_a_worker_in_place_of_a_server_is_told(start_worker: Callable[..., WorkerProcess]) -> None:
    address = start_worker().address
    server = ServerAddress(f"http://{address}", None)
    told = pytest.raises(DllamaError, match=f"at http://{address} is no server of dllama: .*--url")
    with told as error:
        server.ask("GET", "/cluster/nodes", None, 20.0)
    assert str(error.value).isprintable() and "\\x" not in str(error.value)
