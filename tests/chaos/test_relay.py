"""The relay passes bytes on in order, holds them back, and resets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.lan.wire import LinkRule
from tests.chaos.relay import Relay
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
pytestmark = pytest.mark.usefixtures("no_leaks")
SHORT_S, LONG_S = 0.3, 20.0


class Echo:
    """A server that sends back what it is sent."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if not (data := connection.recv(1 << 16)):
                    return
                while data:
                    connection.sendall(data)
                    try:
                        data = connection.recv(1 << 16)
                    except OSError:
                        break


@pytest.fixture
def relay() -> Iterator[Relay]:
    echo = Echo()
    made = Relay(echo.port)
    yield made
    made.close()
    echo.close()


def connect(relay: Relay, timeout_s: float = LONG_S) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout_s)


def test_bytes_come_back_in_order(relay: Relay) -> None:
    relay.set_rules(LinkRule(delay_s=0.01, jitter_s=0.02), LinkRule(loss=0.2))
    sent = b"".join(bytes([k]) * 999 for k in range(20))
    with connect(relay) as end:
        end.sendall(sent)
        found = b""
        while len(found) < len(sent):
            found += end.recv(1 << 16)
    assert found == sent


@pytest.mark.parametrize("way", [0, 1])
def test_a_way_that_is_cut_holds_bytes_back_until_it_is_mended(relay: Relay, way: int) -> None:
    rules = [LinkRule(), LinkRule()]
    rules[way] = LinkRule(is_cut=True)
    with connect(relay, SHORT_S) as end:
        end.sendall(b"first")
        assert end.recv(100) == b"first"
        relay.set_rules(*rules)
        end.sendall(b"second")
        with pytest.raises(TimeoutError):
            end.recv(100)
        relay.set_rules(LinkRule(), LinkRule())
        end.settimeout(LONG_S)
        assert end.recv(100) == b"second"


def test_a_reset_ends_connections_and_new_ones_are_taken(relay: Relay) -> None:
    with connect(relay) as end:
        end.sendall(b"first")
        assert end.recv(100) == b"first"
        relay.reset()
        with pytest.raises(ConnectionResetError):
            end.recv(100)
    with connect(relay) as end:
        end.sendall(b"again")
        assert end.recv(100) == b"again"
