"""The links to all workers: how long a root waits for the reason of a loss."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq

from cluster.root import worker_links
from cluster.root.scouts import Scouts, greeter
from cluster.root.worker_links import WorkerLinks
from cluster.security.settings import Security
from cluster.sockets import Address
from cluster.wire.messages import Failed, Hello, pack
from dllama import __version__
from dllama.errors import ClusterError, PeerLost

EPOCH = 5
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


class Daemons:
    """The far ends of two links, which have been greeted."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.sockets = [self.context.socket(zmq.ROUTER) for _ in range(2)]
        ports = [each.bind_to_random_port("tcp://127.0.0.1") for each in self.sockets]
        addresses = [Address("127.0.0.1", port) for port in ports]
        self.links = WorkerLinks(addresses, self.context, __version__, Security())
        self.roots = []
        for link, each in zip(self.links, self.sockets, strict=True):
            each.rcvtimeo = 10_000
            link.tell_daemon(Hello(__version__))
            self.roots.append(each.recv_multipart()[0])
            link.epoch = EPOCH

    def close(self) -> None:
        self.links.close()
        for each in self.sockets:
            each.close(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    monkeypatch.setattr(worker_links, "REASON_WAIT_S", 20.0)
    made = Daemons()
    yield made
    made.close()


def lose(links: WorkerLinks, rank: int) -> None:
    with links.explained():
        raise links.of_rank(rank).lost("closed its link")


def test_a_daemon_that_is_gone_is_not_waited_for(daemons: Daemons) -> None:
    daemons.sockets[1].close(linger=0)
    began = time.monotonic()
    with pytest.raises(PeerLost, match="its dllama-worker ended") as lost:
        lose(daemons.links, 2)
    assert lost.value.rank == 2 and time.monotonic() - began < 10.0


def test_the_reason_that_a_daemon_tells_is_waited_for(daemons: Daemons) -> None:
    daemons.sockets[1].send_multipart(
        [daemons.roots[1], *pack(Failed("the kernel said no", -1), EPOCH)]
    )
    with pytest.raises(PeerLost, match="the kernel said no") as lost:
        lose(daemons.links, 2)
    assert lost.value.rank == 2


def test_a_link_that_cannot_be_begun_leaves_nothing_open() -> None:
    addresses = [Address("127.0.0.1", 9), Address("_pi", 9)]  # a name that ZeroMQ refuses
    context = zmq.Context()
    with pytest.raises(ClusterError, match="no connection to worker _pi:9 can be begun"):
        WorkerLinks(addresses, context, __version__, Security())
    context.term()  # which waits for sockets that are open


def test_a_scout_says_that_a_link_cannot_be_begun() -> None:
    scouts = Scouts(greeter(__version__, Security()))
    scouts.ask(Address("_pi", 9), 1.0)
    scouts.close()
    ((address, error),) = scouts.answers()
    assert address.host == "_pi"
    assert isinstance(error, ClusterError)
