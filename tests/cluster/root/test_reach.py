"""Workers that are named twice, not at all, or are something else: each is named for what it is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from cluster.root import reach
from cluster.root.reach import check_names, why_silent
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from dllama.errors import ConfigError, PeerLost
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.worker_process import WorkerProcess

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


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_what_is_no_worker_is_told(words: bytes) -> None:
    with listener(words) as address:
        assert "is no dllama-worker, or" in why_silent(address)


def test_a_worker_that_hangs_is_told() -> None:
    with listener(b"\xff" + bytes(8) + b"\x7f") as address:
        assert "listens but says nothing" in why_silent(address)


def test_a_server_in_place_of_a_worker_is_told_at_the_start() -> None:
    told = pytest.raises(PeerLost, match=r"did not answer .*is no dllama-worker")
    with socket.create_server(("127.0.0.1", 0)) as http, told:
        start(Address("127.0.0.1", http.getsockname()[1]))
