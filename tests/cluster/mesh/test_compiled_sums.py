"""Sums in compiled code have the bits of those in Python, and what is out of the ordinary passes
from one to the other without a loss."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import zmq

from cluster.mesh.collective import MeshCollective
from cluster.mesh.filing import Phase
from cluster.mesh.line import Line
from cluster.mesh.links import HEADER_BYTES
from cluster.mesh.meeting import uses_connections
from cluster.mesh.sync_type import SyncType
from cluster.sockets import endpoint
from dllama.collective import Addend
from dllama.errors import PeerLost, ProtocolError
from dllama.runtime.graph import Replay, Sum
from kernels.matmul.sums import FixedSums
from kernels.wire import places
from tests.fixed_sums import fixed_sums

EPOCH, WIDTH = 7, 64
needs_lines = pytest.mark.skipif(not uses_connections(), reason="lines need Linux")
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]


class Ranks:
    """A mesh of threads, each with the arrays of a small sum that its program adds up."""

    def __init__(self, n: int, sync_type: SyncType, n_rows: int = 2) -> None:
        self.context = zmq.Context()
        self.meshes = [
            MeshCollective(r, n, EPOCH, sync_type=sync_type, context=self.context) for r in range(n)
        ]
        peers = [endpoint("127.0.0.1", mesh.bind("127.0.0.1", [0])) for mesh in self.meshes]
        self.pool = ThreadPoolExecutor(n)
        self.each(lambda rank: self.meshes[rank].connect(peers, 20.0))
        shape = (n_rows, WIDTH)
        self.totals = [np.zeros(shape, np.float32) for _ in range(n)]
        is_exact = sync_type is SyncType.EXACT
        self.addends: list[Addend] = [
            FixedSums.zeros(*shape) if is_exact else total for total in self.totals
        ]
        self.replays = [
            Replay([Sum(self.addends[r], self.totals[r])], mesh)
            for r, mesh in enumerate(self.meshes)
        ]

    def each(self, body: Callable[[int], object]) -> list[object]:
        return list(self.pool.map(body, range(len(self.meshes)), timeout=60))

    def put(self, xs: list[np.ndarray]) -> None:
        for addend, x in zip(self.addends, xs, strict=True):
            if isinstance(addend, FixedSums):
                for plane, made in zip(addend, fixed_sums(x), strict=True):
                    plane[:] = made
            else:
                addend[:] = x

    def close(self) -> None:
        for mesh in self.meshes:
            mesh.close()
        self.pool.shutdown()
        self.context.destroy(linger=0)


@pytest.fixture
def make_ranks() -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def make(n: int, sync_type: SyncType = SyncType.EXACT, **more: int) -> Ranks:
        made.append(Ranks(n, sync_type, **more))
        return made[-1]

    yield make
    for ranks in made:
        ranks.close()


def addends(n: int, seed: int, n_rows: int = 2, scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal((n_rows, WIDTH)).astype("f4") for _ in range(n)]


def in_python(ranks: Ranks, xs: list[np.ndarray]) -> np.ndarray:
    """The sum as all_reduce gives it, which must be one on all ranks."""
    ranks.put(xs)
    outs = [np.zeros_like(total) for total in ranks.totals]
    ranks.each(lambda r: ranks.meshes[r].all_reduce(ranks.addends[r], outs[r]))
    assert all(np.array_equal(out, outs[0]) for out in outs)
    return outs[0]


@pytest.mark.parametrize("shared", ["0", "1"])
@pytest.mark.parametrize("sync_type", [SyncType.EXACT, SyncType.F32])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_compiled_sums_have_the_bits_of_pythons(
    make_ranks: Callable[..., Ranks],
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    sync_type: SyncType,
    shared: str,
) -> None:
    """Ranks pause now and then, so that others are ahead; Python and compiled code take turns."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", shared)
    ranks = make_ranks(n, sync_type)
    for turn in range(40):
        xs = addends(n, turn, scale=1e6 if turn % 7 == 3 else 1.0)  # some do not fit 32 bits
        expected = in_python(ranks, xs)
        ranks.put(xs)

        def add(rank: int, turn: int = turn) -> None:
            time.sleep(0.003 * (turn % n == rank))
            ranks.replays[rank].run()

        before = ranks.meshes[0].links.sequence
        ranks.each(add)
        assert all(np.array_equal(total, expected) for total in ranks.totals)
        assert all(mesh.links.sequence == before + 1 for mesh in ranks.meshes)
    sent = {mesh.links.sent_bytes for mesh in ranks.meshes}
    received = {mesh.links.received_bytes for mesh in ranks.meshes}
    assert sent == received or shared == "1"
    assert all(m.times.network_ns > 0 and m.times.compute_ns > 0 for m in ranks.meshes)


def test_most_sums_never_reach_python(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(2)
    ranks.put(addends(2, 1))
    finished = [0, 0]

    def run(rank: int) -> None:
        mesh = ranks.meshes[rank]
        all_reduce = mesh.all_reduce

        def counted(x: Addend, out: np.ndarray) -> None:
            finished[rank] += 1
            all_reduce(x, out)

        mesh.all_reduce = counted  # type: ignore[method-assign]
        for _ in range(50):
            ranks.replays[rank].run()

    ranks.each(run)
    assert max(finished) < 25  # a busy machine lets a rank wait for long now and then


def test_what_comes_early_is_kept_for_its_turn(make_ranks: Callable[..., Ranks]) -> None:
    """Rank 0 gathers, and rank 1 is already in the sum behind that."""
    ranks = make_ranks(3, SyncType.F32)
    xs = addends(3, 1)
    expected = in_python(ranks, xs)
    for late in range(3):
        ranks.put(xs)

        def step(rank: int, late: int = late) -> object:
            time.sleep(0.05 * (rank == late))
            parts = ranks.meshes[rank].gather(bytes([rank]))
            ranks.replays[rank].run()
            return parts

        parts = ranks.each(step)
        assert parts == [[b"\x00", b"\x01", b"\x02"], None, None]
        assert all(np.array_equal(total, expected) for total in ranks.totals)


def test_strangers_messages_are_dropped_in_the_middle_of_a_sum(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(2)
    xs = addends(2, 5)
    expected = in_python(ranks, xs)
    ranks.put(xs)
    stranger = ranks.context.socket(zmq.PUSH)
    stranger.setsockopt(zmq.LINGER, 0)
    stranger.connect(ranks.meshes[0].links.inbox.getsockopt_string(zmq.LAST_ENDPOINT))
    for noise in (b"x", bytes(HEADER_BYTES + 4 * 2 * WIDTH), b"y" * 100_000):
        stranger.send(noise)
        stranger.send_multipart([noise, b"", noise])
    first = threading.Thread(target=ranks.replays[0].run)
    first.start()
    time.sleep(0.1)
    ranks.replays[1].run()
    first.join()
    stranger.close()
    assert all(np.array_equal(total, expected) for total in ranks.totals)


def test_a_message_that_no_rank_sends_is_an_error(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows the epoch, and belongs to a sum of another size."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(2)
    links = ranks.meshes[1].links
    message = bytearray(HEADER_BYTES + 8)
    links.pack_header(message, Phase.PARTIAL, 0, links.sequence + 1, 0)
    links.send(0, message)
    with pytest.raises(ProtocolError, match="bytes to a collective"):
        ranks.replays[0].run()


def test_a_peer_that_is_gone_is_told(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(2)
    ranks.meshes[1].close()
    with pytest.raises(PeerLost, match="rank 1"):
        ranks.replays[0].run()
    assert ranks.meshes[0].links.counters[places.STAGE] == places.NOT_BEGUN


def test_what_is_no_small_sum_of_integers_or_floats_is_pythons(
    make_ranks: Callable[..., Ranks],
) -> None:
    ranks = make_ranks(2, SyncType.Q80)
    assert ranks.meshes[0].all_reduce_call(ranks.addends[0], ranks.totals[0]) is None
    xs = addends(2, 9)
    expected = in_python(ranks, xs)
    ranks.put(xs)
    ranks.each(lambda rank: ranks.replays[rank].run())
    assert all(np.array_equal(total, expected) for total in ranks.totals)
    large = make_ranks(2, SyncType.F32, n_rows=5000)
    assert large.meshes[0].all_reduce_call(large.addends[0], large.totals[0]) is None


def lines_of(ranks: Ranks, rank: int) -> dict[int, Line]:
    found = ranks.meshes[rank].links._connections
    assert found is not None, "ranks without shared memory have lines"
    return found._lines


@needs_lines
@pytest.mark.parametrize("how", ["polling", "resting", "throttled"])
def test_a_message_that_was_read_with_the_one_before_is_not_slept_over(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A peer may be one message ahead, and a rank that sleeps at once finds its socket empty."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(2)
    session = ranks.meshes[0].links.counters
    ranks.put(addends(2, 3))
    ranks.each(lambda rank: ranks.replays[rank].run())
    ahead = threading.Thread(target=lambda: [ranks.replays[1].run() for _ in range(2)])
    ahead.start()
    time.sleep(0.05)  # rank 1 waits in the first of its two sums
    message, links = bytearray(HEADER_BYTES + 4 * 2 * WIDTH), ranks.meshes[1].links
    links.pack_header(message, Phase.PARTIAL, 0, links.sequence + 1, 0)
    assert lines_of(ranks, 1)[0].write(message)  # and its second message is there as well
    ranks.replays[0].run()
    if how == "throttled":
        session[places.POLL_NS] = 0
    session[places.RESTING] = 10 if how == "resting" else 0
    started = time.perf_counter()
    ranks.replays[0].run()
    assert time.perf_counter() - started < 0.2
    with suppress(ProtocolError, PeerLost):  # rank 0 gets it twice: it was sent by hand as well
        ahead.join(20)
    assert not ahead.is_alive()


@needs_lines
@pytest.mark.parametrize("polls", [True, False])
def test_a_wait_among_several_looks_around_whatever_the_others_connections_do(
    make_ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, polls: bool
) -> None:
    """Rank 1 has sent and is gone, its connection reset; rank 2 says nothing for a while."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    ranks = make_ranks(3)
    ranks.put(addends(3, 3))
    looked: list[float] = []

    def look() -> None:
        looked.append(time.thread_time())
        if len(looked) == 4:
            raise KeyboardInterrupt

    links = ranks.meshes[0].links
    links.watch = look
    links.counters[places.POLL_NS] = places.SPIN_NS if polls else 0
    message = bytearray(HEADER_BYTES + 4 * 2 * WIDTH)
    sender = ranks.meshes[1].links
    sender.pack_header(message, Phase.PARTIAL, 0, sender.sequence + 1, 0)
    line = lines_of(ranks, 1)[0]
    assert line.write(message)
    line._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lines_of(ranks, 0)[1]._socket.send(b"never read, so that the end is a reset")
    time.sleep(0.05)
    line._socket.close()
    began = time.thread_time()
    with pytest.raises((KeyboardInterrupt, PeerLost)):
        ranks.replays[0].run()
    assert (
        looked and time.thread_time() - began < 0.5
    )  # seconds of waiting, hardly any of computing
