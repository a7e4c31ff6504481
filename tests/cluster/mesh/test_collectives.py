"""One contract, three Collectives: a cluster of one, threads, and the mesh of sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import sockets
from cluster.mesh import layout
from cluster.mesh.collective import MeshCollective
from cluster.mesh.filing import Key, Phase
from cluster.mesh.links import HEADER_BYTES, MeshLinks
from cluster.mesh.shared_ring import IS_SUPPORTED
from cluster.mesh.sync_type import SyncType, make_codec
from cluster.sockets import endpoint
from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import Collective, SoloCollective
from dllama.errors import PeerLost, ProtocolError
from tests.fixed_sums import fixed_sums

EPOCH = 77
pytestmark = pytest.mark.usefixtures("no_leaks")


class MeshOfThreads:
    """A mesh over loopback whose ranks live in threads of this process."""

    def __init__(self, world_size: int, sync_type: SyncType = SyncType.F32) -> None:
        self.context = zmq.Context()
        self.ranks = [
            MeshCollective(r, world_size, EPOCH, sync_type=sync_type, context=self.context)
            for r in range(world_size)
        ]
        self.peers = [endpoint("127.0.0.1", rank.bind("127.0.0.1", [0])) for rank in self.ranks]

    def connect(self) -> None:
        run_ranks([lambda c=c: c.connect(self.peers, 10.0) for c in self.ranks])

    def close(self) -> None:
        for rank in self.ranks:
            rank.close()
        self.context.destroy()


def run_ranks(bodies: list[Callable[[], object]]) -> list[object]:
    """Every body in a thread of its own; their results in order."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return [f.result(30) for f in [pool.submit(body) for body in bodies]]


@pytest.fixture
def make_mesh() -> Iterator[Callable[..., MeshOfThreads]]:
    made: list[MeshOfThreads] = []

    def make(world_size: int, sync_type: SyncType = SyncType.F32) -> MeshOfThreads:
        made.append(MeshOfThreads(world_size, sync_type))
        made[-1].connect()
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()


@pytest.fixture(params=["solo", "thread-3", "mesh-2", "mesh-3", "mesh-5", "mesh-3-q80"])
def ranks(
    request: pytest.FixtureRequest, make_mesh: Callable[..., MeshOfThreads]
) -> list[Collective]:
    kind, _, rest = request.param.partition("-")
    if kind == "solo":
        return [SoloCollective()]
    world_size, _, sync_type = rest.partition("-")
    if kind == "thread":
        group = ThreadGroup(int(world_size))
        return [ThreadCollective(group, r) for r in range(group.world_size)]
    mesh = make_mesh(int(world_size), SyncType(sync_type or "f32"))
    return list(mesh.ranks)


def partials(world_size: int, rows: int, cols: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rows, cols)).astype(np.float32) for _ in range(world_size)]


def reduce_all(ranks: list[Collective], xs: list[np.ndarray]) -> list[np.ndarray]:
    def body(c: Collective, x: np.ndarray) -> np.ndarray:
        out = np.full_like(x, np.nan)
        if isinstance(c, MeshCollective) and c.sync_type is SyncType.EXACT:
            c.all_reduce(fixed_sums(x), out)
            return out
        kept = x.copy()
        c.all_reduce(x, out)
        assert np.array_equal(x, kept)
        return out

    bodies = [lambda c=c, x=x: body(c, x) for c, x in zip(ranks, xs, strict=True)]
    return run_ranks(bodies)  # type: ignore[return-value, arg-type]


@pytest.mark.parametrize("shape", [(1, 64), (3, 52), (700, 96)])
def test_all_ranks_hold_the_same_bits_of_the_sum(
    ranks: list[Collective], shape: tuple[int, int]
) -> None:
    xs = partials(len(ranks), *shape)
    sums = reduce_all(ranks, [x.copy() for x in xs])
    assert all(s.tobytes() == sums[0].tobytes() for s in sums)
    assert sums[0].shape == shape and sums[0].dtype == np.float32
    assert np.abs(sums[0] - np.sum(xs, axis=0)).max() < 0.05 * len(ranks)


def test_a_sum_may_take_the_place_of_its_addend(ranks: list[Collective]) -> None:
    xs = partials(len(ranks), 5, 64)
    sums = reduce_all(ranks, [x.copy() for x in xs])
    own = [x.copy() for x in xs]
    run_ranks([lambda c=c, x=x: c.all_reduce(x, out=x) for c, x in zip(ranks, own, strict=True)])
    assert all(np.array_equal(x, total) for x, total in zip(own, sums, strict=True))


def test_parts_reach_rank_0_in_order(ranks: list[Collective]) -> None:
    parts = [bytes([r]) * (10 * r) for r in range(len(ranks))]
    gathered = run_ranks([lambda c=c, p=p: c.gather(p) for c, p in zip(ranks, parts, strict=True)])
    assert gathered[0] == parts and not any(gathered[1:])


def test_collectives_may_follow_each_other_at_any_speed(ranks: list[Collective]) -> None:
    """Faster ranks are ahead by some messages; nothing mixes."""

    def body(rank: int, c: Collective) -> list[object]:
        heard: list[object] = []
        for i in range(30):
            if i % len(ranks) == rank:
                threading.Event().wait(0.002)
            x = np.full((1 + i % 3, 8), i + rank, np.float32)
            c.all_reduce(x, out=x)
            heard.append(x.tobytes())
            if i % 5 == 0:
                heard.append(c.gather(f"{i}:{rank}".encode()) if rank == 0 else c.gather(b"."))
        return [h for h in heard if isinstance(h, bytes)]

    heard = run_ranks([lambda r=r, c=c: body(r, c) for r, c in enumerate(ranks)])
    assert all(h == heard[0] for h in heard)


def test_f32_sums_are_those_of_adding_in_rank_order(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    xs = partials(4, 2, 40)
    expected = xs[0].copy()
    for x in xs[1:]:
        expected += x
    for ranks in (
        list(make_mesh(4).ranks),
        [ThreadCollective(group, r) for group in [ThreadGroup(4)] for r in range(4)],
    ):
        sums = reduce_all(ranks, [x.copy() for x in xs])  # type: ignore[arg-type]
        assert all((s == expected).all() for s in sums)


@pytest.mark.parametrize("sync_type", list(SyncType))
def test_scattered_sums_have_the_bits_of_plain_ones(
    make_mesh: Callable[..., MeshOfThreads],
    sync_type: SyncType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    xs = partials(4, 50, 96)
    plain = reduce_all(list(make_mesh(4, sync_type).ranks), xs)
    monkeypatch.setattr(layout, "is_scattered", lambda *_: True)
    monkeypatch.setattr(layout, "BLOCK_BYTES", 3 * 4 * 96)  # blocks of three rows
    mesh = make_mesh(4, sync_type)
    for _ in range(2):
        scattered = reduce_all(list(mesh.ranks), xs)
        assert all(s.tobytes() == plain[0].tobytes() for s in scattered)


def test_large_payloads_are_scattered_from_four_ranks_on(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    xs = partials(4, 256, 512)
    mesh = make_mesh(4)
    reduce_all(list(mesh.ranks), xs)
    sent = [rank.links.sent_bytes for rank in mesh.ranks]
    assert all(s < 0.55 * 3 * xs[0].nbytes for s in sent)
    pair = make_mesh(2)
    reduce_all(list(pair.ranks), xs[:2])
    assert all(r.links.sent_bytes >= xs[0].nbytes for r in pair.ranks)


def test_q80_sends_a_quarter(make_mesh: Callable[..., MeshOfThreads]) -> None:
    mesh = make_mesh(2, SyncType.Q80)
    before = [r.links.sent_bytes for r in mesh.ranks]
    reduce_all(list(mesh.ranks), partials(2, 8, 1024))
    sent = [r.links.sent_bytes - b for r, b in zip(mesh.ranks, before, strict=True)]
    assert sent == [8 * (1024 + 2 * 32) + HEADER_BYTES] * 2


@pytest.mark.parametrize("collective", ["all_reduce", "gather"])
def test_waiting_for_a_slow_rank_is_told_from_the_network(
    make_mesh: Callable[..., MeshOfThreads], collective: str
) -> None:
    mesh = make_mesh(2)
    slow_s = 0.3

    def body(rank: MeshCollective) -> None:
        rank.begin_step()
        threading.Event().wait(slow_s * rank.rank)
        if collective == "gather":
            rank.gather(b"part")
        else:
            x = np.zeros((1, 8), np.float32)
            rank.all_reduce(x, out=x)

    run_ranks([lambda r=r: body(r) for r in mesh.ranks])
    fast, slow = (rank.times for rank in mesh.ranks)
    assert fast.wait_ns > 0.5e9 * slow_s > slow.wait_ns
    assert slow.compute_ns > 0.9e9 * slow_s > fast.compute_ns


@pytest.mark.timeout(120)  # nothing else ends the wait
def test_a_rank_that_leaves_is_noticed_while_waiting(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    mesh = make_mesh(3)
    mesh.ranks[2].close()
    with pytest.raises(PeerLost, match=r"rank 2 at tcp://127\.0\.0\.1") as lost:
        mesh.ranks[0].links.take(Key(0, Phase.PARTIAL, 0, 2))
    assert lost.value.rank == 2


def test_the_watch_is_called_while_waiting_and_may_end_it(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    mesh, calls = make_mesh(2), []

    def watch() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise PeerLost("enough", rank=1, host="there")

    mesh.ranks[0].links.watch = watch
    x = np.zeros((1, 8), np.float32)
    with pytest.raises(PeerLost, match="enough"):
        mesh.ranks[0].all_reduce(x, out=x)


def test_a_rank_that_never_comes_is_named() -> None:
    mesh = MeshOfThreads(2)
    try:
        with pytest.raises(PeerLost, match=r"rank 0 and rank 1 at .* open the session ports"):
            mesh.ranks[0].connect(mesh.peers, 0.5)
    finally:
        mesh.close()


def test_strangers_and_stale_epochs_are_dropped(
    make_mesh: Callable[..., MeshOfThreads], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ZeroMQ alone: rings of shared memory would be read before the noise."""
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")
    mesh = make_mesh(2)

    def partial(epoch: int, block: int) -> bytearray:
        message = bytearray(HEADER_BYTES + 32)
        MeshLinks(1, epoch, mesh.context).pack_header(message, Phase.PARTIAL, block, 1, 0)
        return message

    other_magic = b"dlm0" + partial(EPOCH, 0)[4:]
    with mesh.context.socket(zmq.PUSH) as stranger:
        stranger.connect(mesh.peers[0])
        for noise in (b"", b"hello", bytes(100), partial(EPOCH - 1, 0), other_magic):
            stranger.send(noise)
        stranger.send(partial(EPOCH, 7))
        mesh.ranks[0].links.take(Key(1, Phase.PARTIAL, 7, 1))  # so all of the noise is read
    xs = partials(2, 1, 8)
    sums = reduce_all(list(mesh.ranks), xs)
    assert (sums[0] == xs[0] + xs[1]).all()


@pytest.mark.parametrize("noise", [b"", b"hello", bytes(100)])
def test_a_flood_of_strangers_keeps_no_rank_from_looking_around(
    make_mesh: Callable[..., MeshOfThreads], monkeypatch: pytest.MonkeyPatch, noise: bytes
) -> None:
    monkeypatch.setattr("cluster.mesh.links.SLICE_MS", 1)
    mesh, is_over = make_mesh(2), threading.Event()
    stranger = mesh.context.socket(zmq.PUSH)
    stranger.connect(mesh.peers[0])

    def flood() -> None:
        while not is_over.is_set():
            with suppress(zmq.Again):
                stranger.send(noise, zmq.NOBLOCK)

    n_looks = [0]

    def watch() -> None:
        n_looks[0] += 1
        if n_looks[0] == 10:
            raise PeerLost("seen", rank=1, host="there")

    mesh.ranks[0].links.watch = watch
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with pytest.raises(PeerLost, match="seen"):
            mesh.ranks[0].links.take(Key(1, Phase.PARTIAL, 0, 1))
    finally:
        is_over.set()
        thread.join()
        stranger.close()


@pytest.mark.timeout(120)  # a message that is kept is waited for
@pytest.mark.parametrize(("rank", "sequence"), [(0, 1), (9, 1), (1, 10_000)])
def test_a_message_that_no_peer_sends_is_an_error(
    make_mesh: Callable[..., MeshOfThreads], rank: int, sequence: int
) -> None:
    mesh = make_mesh(2)
    forger = MeshLinks(rank, EPOCH, mesh.context)
    message = bytearray(HEADER_BYTES)
    forger.pack_header(message, Phase.PARTIAL, 0, sequence, 0)
    with mesh.context.socket(zmq.PUSH) as stranger:
        stranger.connect(mesh.peers[0])
        stranger.send(message)
        with pytest.raises(ProtocolError):
            mesh.ranks[0].links.take(Key(1, Phase.PARTIAL, 0, 1))


@pytest.mark.timeout(120)  # a message that is kept is waited for
def test_a_message_of_a_collective_that_is_over_is_an_error(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    mesh = make_mesh(2)
    for _ in range(2):
        reduce_all(list(mesh.ranks), partials(2, 1, 8))
    message = bytearray(HEADER_BYTES)
    MeshLinks(1, EPOCH, mesh.context).pack_header(message, Phase.PARTIAL, 0, 1, 0)
    with mesh.context.socket(zmq.PUSH) as stranger:
        stranger.connect(mesh.peers[0])
        stranger.send(message)
        with pytest.raises(ProtocolError, match="is at collective 2 and was sent one numbered 1"):
            mesh.ranks[0].links.take(Key(2, Phase.PARTIAL, 0, 1))


@pytest.mark.skipif(not IS_SUPPORTED, reason="shared rings need Linux")
def test_a_sleeping_rank_is_woken_by_a_message_in_its_ring(
    make_mesh: Callable[..., MeshOfThreads], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would sleep until its socket's timeout, which calls the watch."""
    monkeypatch.setattr(sockets, "SLICE_MS", 5_000)
    mesh = make_mesh(2)

    def watch() -> None:
        raise PeerLost("nobody woke rank 0", rank=1, host="there")

    mesh.ranks[0].links.watch = watch
    x, total = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)

    def late() -> None:
        threading.Event().wait(0.3)  # rank 0 polls for a millisecond, then it sleeps
        mesh.ranks[1].all_reduce(x, np.zeros_like(x))

    run_ranks([lambda: mesh.ranks[0].all_reduce(x, total), late])
    assert np.array_equal(total, 2 * x)


def test_a_payload_of_another_size_is_an_error(make_mesh: Callable[..., MeshOfThreads]) -> None:
    mesh = make_mesh(2)

    def body(rank: MeshCollective) -> None:
        x = np.zeros((1, 8 + rank.rank), np.float32)
        rank.all_reduce(x, out=x)

    with pytest.raises(ProtocolError, match="expects"):
        run_ranks([lambda r=r: body(r) for r in mesh.ranks])


def test_a_thread_that_fails_frees_the_others() -> None:
    group = ThreadGroup(2)
    group.leave()
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(PeerLost):
        ThreadCollective(group, 0).all_reduce(x, out=x)


def q80_by_definition(x: np.ndarray) -> np.ndarray:
    """x (T, cols) through blocks of 32 within a row, as GGUF's Q8_0 rounds."""
    rows, cols = x.shape
    padded = np.zeros((rows, -(-cols // 32) * 32), np.float32)
    padded[:, :cols] = x
    blocks = padded.reshape(rows, -1, 32)
    scale = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    q = np.rint(blocks * inverse[..., None]).clip(-127, 127)
    return (q * scale[..., None]).astype(np.float32).reshape(rows, -1)[:, :cols]


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(1, 100), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_q80_rounds_as_defined_and_row_by_row(rows: int, cols: int, size: float, seed: int) -> None:
    codec = make_codec(SyncType.Q80)
    x = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    x *= np.float32(size)
    x[0, 0] = 0.0
    wire = np.zeros(rows * codec.row_bytes(cols), np.uint8)
    codec.encode(x, slice(None), wire)
    out = np.full_like(x, 7.0)
    codec.add_up([wire], out)
    assert (out == q80_by_definition(x)).all()
    codec.add_up([wire, wire], out)
    assert (out == 2 * q80_by_definition(x)).all()
    last = np.zeros(codec.row_bytes(cols), np.uint8)
    codec.encode(x, slice(rows - 1, rows), last)
    alone = np.zeros((1, cols), np.float32)
    codec.add_up([last], alone)
    assert (2 * alone == out[-1:]).all()


def test_what_strangers_send_to_an_idle_rank_is_dropped_by_draining(
    make_mesh: Callable[..., MeshOfThreads],
) -> None:
    mesh = make_mesh(2)
    with mesh.context.socket(zmq.PUSH) as stranger:
        stranger.connect(mesh.peers[0])
        for _ in range(500):
            stranger.send(bytes(100))
        deadline = time.monotonic() + 20
        inbox = mesh.ranks[0].links._inbox
        assert inbox is not None and inbox.poll(10_000)
        while inbox.poll(200):
            mesh.ranks[0].links.drain()
            assert time.monotonic() < deadline
    xs = partials(2, 1, 8)
    assert (reduce_all(list(mesh.ranks), xs)[0] == xs[0] + xs[1]).all()


@pytest.mark.parametrize("sync_type", list(SyncType))
def test_several_collectives_may_be_under_way(
    make_mesh: Callable[..., MeshOfThreads], monkeypatch: pytest.MonkeyPatch, sync_type: SyncType
) -> None:
    """Each rank begins all of them, and ends them in its own time: sums of its rows, then those of
    all ranks."""
    monkeypatch.setattr(layout, "BLOCK_BYTES", 5 * 4 * 96)
    groups = [partials(3, rows, 96, seed=rows) for rows in (12, 12, 9, 2)]
    expected = [reduce_all(list(make_mesh(3, sync_type).ranks), xs)[0] for xs in groups]
    mesh = make_mesh(3, sync_type)

    def body(rank: int) -> list[bytes]:
        comm = mesh.ranks[rank]
        outs = [np.zeros_like(xs[rank]) for xs in groups]
        shares = [comm.shares(len(out)) for out in outs]
        for turn in range(4):
            sums = []
            for xs, out, divided in zip(groups, outs, shares, strict=True):
                time.sleep(0.002 * ((turn + rank) % 3))
                x = fixed_sums(xs[rank]) if sync_type is SyncType.EXACT else xs[rank].copy()
                out[:] = np.nan
                sums.append(comm.begin_reduce_scatter(x, out, divided))
            gathers = []
            for each, out, divided in zip(sums, outs, shares, strict=True):
                each.finish()
                assert np.isnan(np.delete(out, divided.own, 0)).all()
                gathers.append(comm.begin_all_gather(out, divided))
            for gathered in gathers:
                gathered.finish()
        return [out.tobytes() for out in outs]

    for sums in run_ranks([lambda r=r: body(r) for r in range(3)]):
        assert sums == [each.tobytes() for each in expected]


def test_rows_of_any_bits_are_gathered(make_mesh: Callable[..., MeshOfThreads]) -> None:
    """Also such as are no numbers, and shares of no rows."""
    mesh = make_mesh(3)
    whole = np.random.default_rng(3).integers(-(2**31), 2**31, (40, 24)).astype(np.int32)

    def body(rank: int) -> bytes:
        shares = mesh.ranks[rank].shares(len(whole)).of(np.arange(0, 13))
        rows = np.zeros((13, 24), np.float32)
        rows[shares.own] = whole[:13].view(np.float32)[shares.own]
        mesh.ranks[rank].begin_all_gather(rows, shares).finish()
        return rows.tobytes()

    assert set(run_ranks([lambda r=r: body(r) for r in range(3)])) == {whole[:13].tobytes()}
