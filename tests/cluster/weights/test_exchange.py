"""Pieces come from other workers where those hold them, and their failures are no errors."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from cluster.security.epoch_links import EpochLinks, SessionLinks
from cluster.security.keys import new_pair
from cluster.security.links import STORE, LinkSecurity
from cluster.sockets import Context, make_socket
from cluster.weights import exchange
from cluster.weights.exchange import PeerPieces, PieceServer
from cluster.weights.store import WeightStore
from cluster.wire.store_messages import Fetch, Fetched, Holds, Seek, pack, unpack

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]

EPOCH = 77
PIECES = [bytes([i]) * 1000 for i in range(12)]
NAMES = [hashlib.sha256(data).hexdigest() for data in PIECES]
SIZES = [1000] * len(PIECES)
NOBODY = "tcp://127.0.0.1:9"


class Ranks:
    """Rank 1 asks, others have stores; closed with the test."""

    def __init__(self, folder: Path) -> None:
        self.context: Context = zmq.Context()
        self.folder = folder
        self.servers: list[PieceServer] = []
        self.beats = 0
        self._is_started = False
        self.peers = PeerPieces(self.context, EPOCH, self._beat)
        self.links = EpochLinks(self.context, EPOCH)

    def _beat(self) -> None:
        self.beats += 1

    def store(self, rank: int) -> WeightStore:
        return WeightStore(self.folder / str(rank), 1 << 30)

    def serve(
        self, rank: int, numbers: range, epoch: int = EPOCH, security: SessionLinks | None = None
    ) -> str:
        store = self.store(rank)
        for number in numbers:
            store.keep(NAMES[number], PIECES[number])
        self.servers.append(PieceServer(self.context, "127.0.0.1", epoch, store))
        port = self.servers[-1].bind([0], security or self._started())
        self.servers[-1].start()
        return f"tcp://127.0.0.1:{port}"

    def _started(self) -> SessionLinks:
        if not self._is_started:
            self._is_started = True
            self.links.start()
            self.links.admit(STORE, [])
        return self.links

    def connect(self, *endpoints: str) -> None:
        """To the ranks 2 and on."""
        self.peers.connect(1, [NOBODY, NOBODY, *endpoints], (), self.links)

    def locate(self, *numbers: int) -> frozenset[int]:
        return self.peers.locate(NAMES, SIZES, numbers or range(len(PIECES)))

    def take(self, number: int) -> bytes | None:
        data = self.peers.take(number)
        return None if data is None else data.tobytes()

    def close(self) -> None:
        self.peers.close()
        for server in self.servers:
            server.close()
        self.links.close()
        self.context.destroy()


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    monkeypatch.setattr(exchange, "FETCH_S", 0.5)
    made = Ranks(tmp_path)
    yield made
    made.close()


def test_pieces_come_from_those_who_hold_them(ranks: Ranks) -> None:
    ranks.connect(ranks.serve(2, range(8)), ranks.serve(3, range(4, 10)))
    assert ranks.locate() == frozenset(range(10)), "nobody holds the last two"
    holders = list(ranks.peers._holders.values())
    assert holders.count(2) + holders.count(3) == 10 and abs(holders.count(2) - 5) <= 1
    for number in range(10):
        assert ranks.take(number) == PIECES[number]


def test_who_holds_nothing_or_is_not_there_is_not_asked(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SEEK_S", 0.5)
    ranks.connect(ranks.serve(2, range(0)), NOBODY, ranks.serve(4, range(2)))
    assert ranks.locate() == frozenset([0, 1])
    assert ranks.take(0) == PIECES[0] and ranks.beats > 0


def test_nothing_is_asked_where_nothing_is_missing(ranks: Ranks) -> None:
    ranks.connect(NOBODY)
    assert ranks.peers.locate(NAMES, SIZES, []) == frozenset()


def test_a_session_of_two_nodes_has_no_other_worker(ranks: Ranks) -> None:
    ranks.connect()
    assert ranks.locate() == frozenset()


@pytest.mark.parametrize("damage", [None, b"", b"noise", PIECES[3]])
def test_a_piece_that_is_gone_or_damaged_comes_from_the_root(
    ranks: Ranks, damage: bytes | None
) -> None:
    ranks.connect(ranks.serve(2, range(12)))
    ranks.locate()
    file = ranks.folder / "2" / NAMES[1]
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert ranks.take(0) == PIECES[0] and ranks.take(1) is None and ranks.take(2) == PIECES[2]


def test_a_rank_that_falls_silent_is_waited_for_once(
    ranks: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    ranks.connect(ranks.serve(2, range(12)))
    assert len(ranks.locate()) == 12
    ranks.servers.pop().close()
    assert [ranks.take(number) for number in range(12)] == [None] * 12
    assert len([r for r in caplog.records if "sends no weights" in r.getMessage()]) == 1


def test_strangers_of_another_epoch_get_no_answer(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SEEK_S", 0.5)
    ranks.connect(ranks.serve(2, range(12), epoch=EPOCH + 1))
    assert ranks.locate() == frozenset()


def test_links_are_encrypted_where_the_session_is(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no key of the session, or none at all, gets nothing."""
    monkeypatch.setattr(exchange, "SEEK_S", 0.5)
    gate, member, stranger = (LinkSecurity(ranks.context, new_pair()) for _ in range(3))
    gate.start()
    try:
        gate.admit(STORE, [member.public_key])
        endpoint = ranks.serve(2, range(12), security=gate)
        keys = ["", "", gate.public_key]
        for security, n_found in ((stranger, 0), (ranks.links, 0), (member, 12)):
            peers = PeerPieces(ranks.context, EPOCH, lambda: None)
            peers.connect(1, [NOBODY, NOBODY, endpoint], keys, security)
            assert len(peers.locate(NAMES, SIZES, range(12))) == n_found
            peers.close()
    finally:
        for each in (gate, member, stranger):
            each.close()


@pytest.mark.parametrize(
    "answer",
    [
        Fetched(0, np.full(1000, 200, np.uint8)),
        Fetched(0, np.zeros(5, np.uint8)),
        Fetched(99, np.zeros(1000, np.uint8)),
        Seek(np.zeros((1, 32), np.uint8)),
        None,
    ],
    ids=["other bytes", "too few", "another number", "another message", "noise"],
)
def test_a_rank_that_sends_nonsense_spoils_nothing(ranks: Ranks, answer: Fetched | None) -> None:
    fake = make_socket(ranks.context, zmq.ROUTER, host="127.0.0.1", max_message_bytes=1 << 20)
    fake.setsockopt(zmq.RCVTIMEO, 10_000)
    ranks._started().listen(fake, STORE)
    port = fake.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        identity, *frames = fake.recv_multipart()
        assert isinstance(unpack(frames)[1], Seek)
        held = Holds(np.array([0, 1, -4, 1000], np.int32))
        fake.send_multipart([identity, *pack(held, EPOCH)])
        identity, *frames = fake.recv_multipart()
        assert isinstance(unpack(frames)[1], Fetch)
        wire = [b"noise"] if answer is None else pack(answer, EPOCH)
        fake.send_multipart([identity, *wire])

    thread = threading.Thread(target=serve)
    thread.start()
    ranks.connect(f"tcp://127.0.0.1:{port}")
    assert ranks.locate() == frozenset([0, 1])
    assert ranks.take(0) is None
    thread.join(20)
    fake.close()
