"""A ZeroMQ socket behind a front hears its roots, whatever strangers send."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from cluster.front.connection import MAX_UNREAD
from cluster.front.front import MAX_OFFENCES, Front
from cluster.front.guests import GuestLimits
from cluster.front.private import PrivateEndpoint
from cluster.sockets import make_socket
from dllama.errors import ConfigError
from tests.cluster.front.zmtp import GREETING, frame, is_closed, shake_hands

MAX_BYTES = 16 << 10
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]


class Service:
    """A ROUTER behind a front, which answers each message with its last frame."""

    def __init__(self, limits: GuestLimits | None = None) -> None:
        self.context = zmq.Context()
        self._inner = PrivateEndpoint()
        self._router = make_socket(self.context, zmq.ROUTER, host="", max_message_bytes=MAX_BYTES)
        self._router.rcvtimeo = 20
        self._inner.bind(self._router)
        self.front = Front(self._inner.target, MAX_BYTES, limits)
        self.address = ("127.0.0.1", self.front.start("127.0.0.1", [0]))
        self.hosts: set[str] = set()
        self.last = 0  # the connection that was heard last
        self._clients: list[zmq.Socket[bytes]] = []
        self._is_running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self._is_running:
            try:
                identity, *frames = self._router.recv_multipart(copy=False)
            except zmq.Again:
                continue
            self.last = self.front.number_of(identity.get(zmq.SRCFD))
            self.front.consumed(self.last)
            self.hosts.add(self.front.address_of(self.last))
            self._router.send_multipart([identity.bytes, frames[-1].bytes])

    def stop_reading(self) -> None:
        self._is_running = False
        self._thread.join()

    def n_unread(self) -> int:
        """Reads, in this thread, what waits."""
        n = 0
        while self._router.poll(100):
            self._router.recv_multipart()
            n += 1
        return n

    def client(self) -> zmq.Socket[bytes]:
        made = self.context.socket(zmq.DEALER)
        self._clients.append(made)
        made.linger = 0
        made.rcvtimeo = 30_000
        made.connect(f"tcp://127.0.0.1:{self.address[1]}")
        return made

    def close(self) -> None:
        self.stop_reading()
        self.front.close()
        for each in (self._router, *self._clients):
            each.close()
        self._inner.close()
        self.context.destroy(linger=0)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def ask(client: zmq.Socket[bytes], *frames: bytes) -> bytes:
    client.send_multipart(frames)
    return client.recv()


def test_messages_and_answers_pass_and_their_host_is_known(service: Service) -> None:
    client = service.client()
    for body in (b"", b"hello", b"x" * 300, b"y" * (MAX_BYTES - 10)):
        assert ask(client, b"head", body) == body
    assert service.hosts == {"127.0.0.1"}


def test_a_message_without_an_end_is_cut_off_before_it_takes_memory(service: Service) -> None:
    stranger = shake_hands(service.address)
    before = psutil.Process().memory_info().rss
    stranger.settimeout(10)
    with pytest.raises(OSError):  # at the latest when the buffers of the system are full
        for _ in range(4_000):
            stranger.sendall(frame(b"x" * 60_000, more=True))
    stranger.close()
    assert psutil.Process().memory_info().rss - before < 8 << 20
    assert ask(service.client(), b"still there") == b"still there"


def test_who_sends_without_pause_waits_and_others_do_not(service: Service) -> None:
    strangers = [shake_hands(service.address) for _ in range(8)]
    for stranger in strangers:
        stranger.setblocking(False)
    flood = frame(b"x") * 20_000
    before, slowest, n_sent = psutil.Process().memory_info().rss, 0.0, 0
    for _ in range(10):
        for stranger in strangers:
            try:
                n_sent += stranger.send(flood)
            except OSError:
                continue
        began = time.monotonic()
        assert ask(service.client(), b"me too") == b"me too"
        slowest = max(slowest, time.monotonic() - began)
    for stranger in strangers:
        stranger.close()
    assert n_sent > 100_000 and slowest < 10.0
    assert psutil.Process().memory_info().rss - before < 16 << 20


@pytest.mark.parametrize(
    "stream", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 100, GREETING + b"\xff" * 20]
)
def test_what_is_not_zmtp_is_closed_and_told_once(
    service: Service, stream: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        stranger = socket.create_connection(service.address)
        stranger.sendall(stream)
        assert is_closed(stranger)
        stranger.close()
    assert len([r for r in caplog.records if "rules of ZMTP" in r.message]) == 1


def test_half_a_greeting_is_closed_in_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.front.front.HANDSHAKE_S", 0.2)
    with socket.create_connection(service.address) as stranger:
        stranger.sendall(GREETING[:20])
        assert is_closed(stranger)


def test_strangers_make_room_and_trusted_ones_stay() -> None:
    service = Service(GuestLimits(max_connections=4, max_per_address=4))
    client = service.client()
    assert ask(client, b"first") == b"first"
    service.front.trust(frozenset({service.last}))
    time.sleep(0.5)
    strangers = [shake_hands(service.address) for _ in range(12)]
    assert ask(service.client(), b"late") == b"late"
    assert ask(client, b"and still") == b"and still"
    assert sum(is_closed(s, 0.5) for s in strangers) >= 8
    for stranger in strangers:
        stranger.close()
    service.close()


def test_a_peer_that_offends_again_and_again_is_closed(service: Service) -> None:
    stranger = shake_hands(service.address)
    stranger.sendall(frame(b"x"))
    deadline = time.monotonic() + 10
    while not service.last:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(MAX_OFFENCES + 1):
        service.front.offended(service.last, "sends nonsense")
    assert is_closed(stranger)
    stranger.close()


def test_who_never_reads_takes_a_bounded_memory(service: Service) -> None:
    stranger = shake_hands(service.address)
    before = psutil.Process().memory_info().rss
    stranger.setblocking(False)
    body = frame(b"x" * 10_000)
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        try:
            stranger.send(body)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break
    stranger.close()
    assert psutil.Process().memory_info().rss - before < 16 << 20
    assert ask(service.client(), b"next") == b"next"


def test_a_port_in_use_and_a_foreign_address_are_said(service: Service) -> None:
    for host, port, words in (
        ("127.0.0.1", service.address[1], "is in use or not allowed"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1"),
    ):
        front = Front("@nothing", MAX_BYTES)
        with pytest.raises(ConfigError, match=words):
            front.start(host, [port])
        front.close()


def test_the_socket_behind_is_never_full(service: Service) -> None:
    """libzmq ends the process where a peer leaves while its messages wait for room."""
    service.stop_reading()
    stranger = shake_hands(service.address)
    stranger.sendall(frame(b"x") * 200)
    time.sleep(0.5)
    stranger.close()
    time.sleep(0.5)
    assert 0 < service.n_unread() <= MAX_UNREAD


def test_a_number_that_is_no_socket_any_more_is_let_go(service: Service) -> None:
    reader, writer = os.pipe()
    try:
        before = sorted(Path("/proc/self/fd").iterdir())
        assert [service.front.number_of(fd) for fd in (reader, writer, 99_999)] == [0, 0, 0]
        assert sorted(Path("/proc/self/fd").iterdir()) == before
    finally:
        os.close(reader)
        os.close(writer)
