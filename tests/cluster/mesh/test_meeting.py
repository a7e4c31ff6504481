"""Ranks of several machines come to connections of their own, whoever else knocks; where they do
not, everything goes by ZeroMQ and the sums are the same."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zmq

from cluster.mesh import libraries, meeting, tickets
from cluster.mesh.collective import MeshCollective
from cluster.mesh.filing import Key, Phase
from cluster.mesh.line import Line
from cluster.mesh.links import HEADER_BYTES
from cluster.mesh.meeting import uses_connections
from cluster.mesh.offer import OFFER_BYTES, Offer
from cluster.mesh.sync_type import SyncType
from cluster.security.keys import new_pair
from cluster.security.links import LinkSecurity
from cluster.sockets import Address, endpoint
from dllama.collective import Addend
from dllama.errors import PeerLost, ProtocolError
from kernels.wire.fixed import add_fixed
from kernels.wire.streams import N_SLOTS
from tests.fixed_sums import fixed_sums
from tests.ports import own_port

EPOCH = 11
pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.timeout(200),
    pytest.mark.skipif(not uses_connections(), reason="connections of ranks need Linux"),
]


def lines_of(rank: MeshCollective) -> dict[int, Line]:
    found = rank.links._connections
    return {} if found is None else found._lines


class Mesh:
    """Ranks in threads, which share no memory, encrypted or plain."""

    def __init__(
        self, n: int, *, encrypts: bool = False, sync_type: SyncType = SyncType.F32
    ) -> None:
        self.sync_type = sync_type
        self.context = zmq.Context()
        self.security = []
        if encrypts:
            for _ in range(n):
                context = zmq.Context()  # a gate has the one endpoint of its context
                self.security.append((context, LinkSecurity(context, new_pair())))
        self.ranks = [
            MeshCollective(
                r, n, EPOCH, sync_type=sync_type,
                context=self.security[r][0] if encrypts else self.context,
            )
            for r in range(n)
        ]  # fmt: skip
        for _, each in self.security:
            each.start()
        ways = [each for _, each in self.security] or [None] * n
        self.peers = [
            endpoint("127.0.0.1", rank.bind("127.0.0.1", [0], way))
            for rank, way in zip(self.ranks, ways, strict=True)
        ]
        self.keys = [each.public_key for _, each in self.security]

    def each(self, body: Callable[[MeshCollective], object]) -> list[object]:
        with ThreadPoolExecutor(len(self.ranks)) as pool:
            return list(pool.map(body, self.ranks, timeout=60))

    def connect(self) -> None:
        self.each(lambda rank: rank.connect(self.peers, 30.0, self.keys))

    def n_met(self) -> list[int]:
        return [len(lines_of(rank)) for rank in self.ranks]

    def check_sums(self) -> None:
        """Short and long ones, some of which need more than 32 bits, are those of one rank."""
        n, is_exact = len(self.ranks), self.sync_type is SyncType.EXACT
        for n_rows, scale in ((1, 1.0), (8, 1.0), (300, 1.0), (300, 1e4)):
            rng = np.random.default_rng(n_rows)
            xs = [
                (scale * rng.standard_normal((n_rows, 1024))).astype(np.float32) for _ in range(n)
            ]
            addends: list[Addend] = [fixed_sums(x) if is_exact else x for x in xs]
            expected = np.zeros_like(xs[0])
            if is_exact:
                add_fixed(addends, expected)  # type: ignore[arg-type]
            else:
                for x in xs:
                    expected += x

            def add(rank: MeshCollective, addends: list[Addend] = addends) -> np.ndarray:
                out = np.zeros((len(addends[0][0]) if is_exact else len(addends[0]), 1024), "f4")
                rank.all_reduce(addends[rank.rank], out)
                return out

            for out in self.each(add):
                assert np.array_equal(out, expected)  # type: ignore[arg-type]
        assert self.each(lambda rank: rank.gather(bytes([rank.rank])))[0] == [
            bytes([r]) for r in range(n)
        ]

    def close(self) -> None:
        for rank in self.ranks:
            rank.close()
        for context, each in self.security:
            each.close()
            context.destroy(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def make_mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Mesh]]:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    made: list[Mesh] = []

    def make(n: int, **more: object) -> Mesh:
        made.append(Mesh(n, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()


@pytest.mark.parametrize("encrypts", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("sync_type", [SyncType.EXACT, SyncType.F32])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_all_ranks_meet_all_others(
    make_mesh: Callable[..., Mesh], n: int, sync_type: SyncType, encrypts: bool
) -> None:
    mesh = make_mesh(n, encrypts=encrypts, sync_type=sync_type)
    mesh.connect()
    assert mesh.n_met() == [n - 1] * n
    mesh.check_sums()
    sealed = {bool(line._words[1]) for rank in mesh.ranks for line in lines_of(rank).values()}
    assert sealed == {encrypts}


def test_ranks_that_share_memory_need_none(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "1")
    mesh = make_mesh(3)
    mesh.connect()
    assert mesh.n_met() == [0, 0, 0]
    mesh.check_sums()


class AllRanks(dict[int, object]):
    """Stands for rings from all ranks."""

    def __contains__(self, rank: object) -> bool:
        return True

    def get(self, *args: object) -> None:  # type: ignore[override]
        return None


def test_a_rank_that_wants_none_is_talked_to_by_zeromq(make_mesh: Callable[..., Mesh]) -> None:
    mesh = make_mesh(3)
    mesh.ranks[1].links._ring_readers = AllRanks()  # type: ignore[assignment]
    mesh.connect()
    assert mesh.n_met() == [1, 0, 1]
    mesh.check_sums()


def test_a_variable_keeps_all_on_zeromq(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_LINES", "0")
    mesh = make_mesh(2)
    mesh.connect()
    assert mesh.n_met() == [0, 0]
    mesh.check_sums()


def test_what_a_stream_does_not_take_goes_by_zeromq(make_mesh: Callable[..., Mesh]) -> None:
    """More messages than a ring holds, before anybody reads them, and one that is too long."""
    mesh = make_mesh(2)
    mesh.connect()
    first, second = (rank.links for rank in mesh.ranks)
    n_bytes = [1 << 20] * (3 * N_SLOTS) + [2 << 20]
    for block, size in enumerate(n_bytes):
        message = bytearray(HEADER_BYTES) + bytes([block]) * size
        first.pack_header(message, Phase.PARTIAL, block, 1, 0)
        first.send(1, message, is_awaited=False)
    second.sequence = 1
    for block, size in enumerate(n_bytes):
        payload = second.take(Key(1, Phase.PARTIAL, block, 0)).payload
        assert bytes(payload) == bytes([block]) * size
    assert first.sent_bytes == second.received_bytes


def test_where_none_can_be_made_a_sentence_says_so_and_sums_are_the_same(
    make_mesh: Callable[..., Mesh],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As behind a firewall that lets no further port through."""
    monkeypatch.setattr(meeting, "WITHIN_S", 1.0)

    def refuse(*args: object) -> socket.socket:
        raise TimeoutError("timed out")

    monkeypatch.setattr(meeting._Meeting, "_connected", refuse)
    mesh = make_mesh(2)
    with caplog.at_level(logging.WARNING):
        mesh.connect()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all("go by ZeroMQ, which is slower" in each for each in said)
    assert any("timed out" in each for each in said)
    assert any("did not connect within 1 s" in each for each in said)
    assert mesh.n_met() == [0, 0]
    mesh.check_sums()


def test_strangers_at_the_port_get_nothing_and_hold_nobody_up(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are silent, some show a wrong ticket, some more than fit."""
    port = own_port()
    listen, knockers = tickets._listening, []

    def listen_and_be_called(host: str, ports: object) -> socket.socket:
        made = listen(host, [port])
        for i in range(tickets.MAX_STRANGERS):
            knocker = socket.create_connection(("127.0.0.1", port))
            knockers.append(knocker)
            if i % 2:
                knocker.sendall(bytes([i]) * (i if i % 3 else 200))
        return made

    monkeypatch.setattr(tickets, "_listening", listen_and_be_called)
    mesh = make_mesh(2)
    started = time.monotonic()
    mesh.connect()
    assert time.monotonic() - started < 10
    assert mesh.n_met() == [1, 1]
    mesh.check_sums()
    for knocker in knockers:
        knocker.close()
    with pytest.raises(ConnectionRefusedError):  # nothing listens any more
        socket.create_connection(("127.0.0.1", port))


def test_a_rank_whose_connection_is_cut_is_lost(make_mesh: Callable[..., Mesh]) -> None:
    mesh = make_mesh(2)
    mesh.connect()
    lines_of(mesh.ranks[1])[0]._socket.shutdown(socket.SHUT_RDWR)
    out = np.zeros((1, 1024), np.float32)
    with pytest.raises(PeerLost, match=r"rank 1 .* has lost its direct connection to rank 0"):
        mesh.ranks[0].all_reduce(np.ones((1, 1024), np.float32), out)


@pytest.mark.parametrize("lacks", [libraries.AEGIS, libraries.CHACHA])
def test_both_use_a_cipher_that_both_can(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch, lacks: libraries.Cipher
) -> None:
    mesh = make_mesh(2, encrypts=True)
    number = libraries.CIPHERS.index(lacks)
    own = meeting._own_ciphers()
    if own & ~(1 << number) == 0:
        pytest.skip("this machine has one cipher only")
    told = iter([own & ~(1 << number), own])
    monkeypatch.setattr(meeting, "_own_ciphers", lambda: next(told))
    mesh.connect()
    assert mesh.n_met() == [1, 1]
    mesh.check_sums()
    other = libraries.CIPHERS[1 - number]
    tags = {int(lines_of(r)[1 - r.rank]._words[3]) for r in mesh.ranks}
    assert tags == {other.tag_bytes}


def test_offers_are_checked() -> None:
    offer = Offer.new(9_999, 3)
    assert Offer.unpack(offer.pack()) == offer and len(offer.pack()) == OFFER_BYTES
    assert len(set(offer.tickets + offer.keys)) == 4
    assert Offer.unpack(b"") is None
    assert set(Offer.new(0, 0).keys) == {bytes(32)}
    for size in (1, OFFER_BYTES - 1, OFFER_BYTES + 1):
        with pytest.raises(ProtocolError, match="an offer of connections has"):
            Offer.unpack(bytes(size))


def test_no_port_for_them_is_said(
    make_mesh: Callable[..., Mesh],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(host: str, ports: object) -> socket.socket:
        raise OSError("cannot listen on port 7: it is in use")

    monkeypatch.setattr(tickets, "_listening", refuse)
    mesh = make_mesh(3)
    with caplog.at_level(logging.WARNING):
        mesh.connect()
    assert mesh.n_met() == [0, 0, 0]
    said = [record.getMessage() for record in caplog.records]
    assert said and all("cannot listen on port 7" in each for each in said)
    mesh.check_sums()


def test_nothing_is_left_of_a_meeting_that_a_rank_leaves(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no_leaks` counts descriptors and threads afterwards."""
    hear = meeting._Meeting.agree

    def leave(own: meeting._Meeting) -> object:
        if own._messenger.rank == 2:
            raise PeerLost("rank 2 is gone", rank=2, host="c")
        own._messenger.watch = leave_soon  # type: ignore[misc]
        return hear(own)

    def leave_soon() -> None:
        raise PeerLost("rank 2 does not answer", rank=2, host="c")

    monkeypatch.setattr(meeting._Meeting, "agree", leave)
    mesh = make_mesh(3)

    def connect(rank: MeshCollective) -> str:
        with pytest.raises(PeerLost) as caught:
            rank.connect(mesh.peers, 30.0)
        return str(caught.value)

    assert len(mesh.each(connect)) == 3


def test_who_is_silent_at_a_meeting_is_named(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    agree = meeting._Meeting.agree

    def say_nothing(own: meeting._Meeting) -> object:
        if own._messenger.rank == 1:
            time.sleep(3.0)
            raise PeerLost("rank 1 was asleep", rank=1, host="b")
        return agree(own)

    monkeypatch.setattr(meeting._Meeting, "agree", say_nothing)
    mesh = make_mesh(3)

    def blamed(rank: MeshCollective) -> int:
        with pytest.raises(PeerLost) as caught:
            rank.connect(mesh.peers, 1.5)
        return caught.value.rank

    assert mesh.each(blamed) == [1, 1, 1]


def test_closed_doors_share_the_time_there_is(
    make_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    untils: dict[int, list[float]] = {}

    def closed(address: Address, shown: bytes, wanted: bytes, until: float, **_: bool) -> None:
        untils.setdefault(threading.get_ident(), []).append(until)
        time.sleep(max(0.0, until - time.monotonic()))
        raise OSError("no answer")

    monkeypatch.setattr(meeting, "connect_with", closed)
    monkeypatch.setattr(meeting, "CONNECT_S", 1.0)
    monkeypatch.setattr(meeting, "LEAST_S", 0.05)
    monkeypatch.setattr(meeting, "WITHIN_S", 0.1)
    mesh = make_mesh(4)
    mesh.connect()
    assert mesh.n_met() == [0] * 4
    longest = max(untils.values(), key=len)  # rank 3, with three lower ones
    assert len(longest) == 3 and longest[2] - longest[0] < 0.5


def test_connections_stay_alive_through_firewalls_that_forget(
    make_mesh: Callable[..., Mesh],
) -> None:
    mesh = make_mesh(2)
    mesh.connect()
    for rank in mesh.ranks:
        found = rank.links._connections
        assert found is not None
        for each in (*found._lines.values(), *found._streams.values()):
            assert each._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert each._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert each._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
