"""A session hears its root, and nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq

from cluster import sockets
from cluster.sockets import Address, endpoint
from cluster.wire.messages import Credit, Join, Loaded, StatsCall, pack, unpack
from cluster.worker.root_link import RootLate, RootLink, RootUnreachable, reaching
from dllama.errors import PeerLost, ProtocolError

EPOCH = 5
pytestmark = pytest.mark.usefixtures("no_leaks")


class Ends:
    """A RootLink, and sockets that may be its root."""

    def __init__(self) -> None:
        self.n_idle = 0
        self.context = zmq.Context()
        self.link = RootLink(self.context, "127.0.0.1", EPOCH, self._idle)
        self._port = self.link.bind([0])
        self.root, self.stranger = (self.context.socket(zmq.DEALER) for _ in range(2))
        for each in (self.root, self.stranger):
            each.rcvtimeo = 10_000
            each.connect(endpoint("127.0.0.1", self._port))

    def _idle(self) -> None:
        self.n_idle += 1

    def close(self) -> None:
        self.link.close()
        self.context.destroy(linger=0)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr(sockets, "SLICE_MS", 20)
    made = Ends()
    yield made
    made.close()


def test_who_knows_the_epoch_is_the_root_and_is_answered(ends: Ends) -> None:
    assert not ends.link.has_root
    ends.stranger.send_multipart(pack(Credit(1), EPOCH + 1))
    ends.stranger.send(b"noise")
    ends.root.send_multipart(pack(StatsCall(7), EPOCH))
    assert ends.link.receive() == StatsCall(7)
    assert ends.link.has_root
    ends.link.send(Loaded())
    assert unpack(ends.root.recv_multipart()) == (EPOCH, Loaded())


def test_nonsense_of_the_root_is_an_error_and_of_others_is_dropped(ends: Ends) -> None:
    ends.root.send_multipart(pack(StatsCall(1), EPOCH))
    ends.link.receive()
    ends.stranger.send(b"noise")
    ends.stranger.send_multipart(pack(StatsCall(2), EPOCH + 1))
    ends.stranger.send_multipart(pack(StatsCall(3), EPOCH))
    assert ends.link.receive() == StatsCall(3)
    ends.root.send(b"noise")
    with pytest.raises(ProtocolError):
        ends.link.receive(lambda: ends.n_idle > 100)


def test_another_kind_than_is_due_is_an_error(ends: Ends) -> None:
    ends.root.send_multipart(pack(Credit(1), EPOCH))
    with pytest.raises(ProtocolError, match="sent Credit where Join was due"):
        ends.link.expect(Join)


def test_a_root_that_stays_silent_has_left(ends: Ends) -> None:
    with pytest.raises(RootLate):
        ends.link.receive(lambda: ends.n_idle >= 3)
    assert ends.n_idle == 3


def test_a_flood_of_strangers_does_not_keep_a_session_from_noticing(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.worker.root_link.SLICE_MS", 1)
    message = pack(Credit(1), EPOCH + 1)
    is_over = threading.Event()

    def flood() -> None:
        while not is_over.is_set():
            with suppress(zmq.Again):
                ends.stranger.send_multipart(message, zmq.NOBLOCK)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with pytest.raises(RootLate):
            ends.link.receive(lambda: ends.n_idle >= 10)
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("lost_rank", [0, 2, None])
def test_a_rank_that_is_not_the_root_s_is_told_from_one_that_left(lost_rank: int | None) -> None:
    """Something listens at the address; another rank that is lost meanwhile is another matter."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        root = Address("127.0.0.1", server.getsockname()[1])
        if lost_rank is None:
            with reaching(root):
                return
        error = RootUnreachable if lost_rank == 0 else PeerLost
        with pytest.raises(error) as told, reaching(root):
            raise PeerLost("it closed its link", rank=lost_rank, host="it")
    expected = f"what listens at {root} does not answer" if lost_rank == 0 else "closed its link"
    assert expected in str(told.value)


def test_an_address_that_leads_nowhere_is_told_before_the_mesh_is_joined() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        root = Address("127.0.0.1", taken.getsockname()[1])
        for where in (root, Address("no-such-host.invalid"), Address("a..b")):
            with pytest.raises(RootUnreachable, match="no way from this worker"), reaching(where):
                pytest.fail("it went on")
