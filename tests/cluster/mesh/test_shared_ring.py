"""Rings of shared memory: what goes in comes out, in order, and nothing else can be attached."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.mesh.collective import MeshCollective
from cluster.mesh.receiver import BusyPollReceiver
from cluster.mesh.shared_ring import IS_SUPPORTED, OFFER, RING_BYTES, RingReader, RingWriter
from cluster.mesh.sync_type import SyncType
from dllama.errors import ProtocolError
from kernels.wire.rings import N_SLOTS, SLOT_BYTES

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not IS_SUPPORTED, reason="shared rings need Linux"),
]


@pytest.fixture
def ring() -> Iterator[tuple[RingWriter, RingReader]]:
    writer = RingWriter()
    reader = RingReader.attach(writer.offer)
    assert reader is not None
    yield writer, reader
    reader.close()
    writer.close()


def test_nothing_is_written_before_a_reader_is_there() -> None:
    writer = RingWriter()
    assert writer.write(b"lost") is None
    writer.close()


def test_memory_that_may_shrink_is_not_attached() -> None:
    """It has the size and the nonce, but no seals."""
    nonce, fd = 12345, os.memfd_create("unsealed")
    try:
        os.ftruncate(fd, RING_BYTES)
        os.pwrite(fd, nonce.to_bytes(8, "little"), 0)
        assert RingReader.attach(OFFER.pack(os.getpid(), fd, nonce)) is None
    finally:
        os.close(fd)


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=30))
def test_messages_come_out_as_they_went_in(messages: list[bytes]) -> None:
    writer = RingWriter()
    reader = RingReader.attach(writer.offer)
    assert reader is not None
    for message in messages:
        assert writer.write(message) is False
        assert reader.take() == message
    reader.close()
    writer.close()


def test_a_full_ring_takes_no_more_until_something_was_read(
    ring: tuple[RingWriter, RingReader],
) -> None:
    writer, reader = ring
    for i in range(N_SLOTS):
        assert writer.write(bytes([i])) is False
    assert writer.write(b"one too many") is None
    assert reader.take() == b"\x00"
    assert writer.write(b"last") is False
    left = [bytes([i]) for i in range(1, N_SLOTS)]
    assert [reader.take() for _ in range(N_SLOTS)] == [*left, b"last"]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=50), min_size=2, max_size=4).filter(any))
def test_parts_come_out_as_one_message(parts: list[bytes]) -> None:
    writer = RingWriter()
    reader = RingReader.attach(writer.offer)
    assert reader is not None
    assert writer.write(*map(memoryview, parts)) is False
    assert reader.take() == b"".join(parts)
    reader.close()
    writer.close()


def test_a_message_longer_than_a_slot_is_not_taken(ring: tuple[RingWriter, RingReader]) -> None:
    writer, reader = ring
    assert writer.write(bytes(SLOT_BYTES)) is None
    assert writer.write(bytes(SLOT_BYTES - 9), b"12") is None
    assert writer.write(bytes(SLOT_BYTES - 8)) is False
    assert reader.take() == bytes(SLOT_BYTES - 8)


def test_a_damaged_length_is_refused(ring: tuple[RingWriter, RingReader]) -> None:
    writer, reader = ring
    writer.write(b"x")
    _, fd, _ = OFFER.unpack(writer.offer)
    os.pwrite(fd, (1 << 40).to_bytes(8, "little"), 4096)  # the length of the first slot
    with pytest.raises(ProtocolError, match="does not fit a slot"):
        reader.take()


def test_what_is_no_ring_cannot_be_attached(tmp_path) -> None:  # type: ignore[no-untyped-def]
    writer = RingWriter()
    pid, fd, nonce = OFFER.unpack(writer.offer)
    with (tmp_path / "file").open("wb+") as file:
        file.truncate(os.fstat(fd).st_size)  # as large, but it could shrink under our feet
        unsealed = OFFER.pack(pid, file.fileno(), 0)
        for offer in (
            b"", b"short", OFFER.pack(pid, fd, nonce + 1), OFFER.pack(pid, 1 << 20, nonce),
            OFFER.pack(1 << 30, fd, nonce), unsealed,
        ):  # fmt: skip
            assert RingReader.attach(offer) is None
    writer.close()


def test_a_sleeping_reader_is_woken_and_loses_nothing() -> None:
    """The writer sends a frame by ZeroMQ exactly when the reader may not look at the ring."""
    n = 3000
    context = zmq.Context()
    inbox, out = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    inbox.setsockopt(zmq.RCVTIMEO, 5000)
    out.connect(f"tcp://127.0.0.1:{inbox.bind_to_random_port('tcp://127.0.0.1')}")
    writer = RingWriter()
    reader = RingReader.attach(writer.offer)
    assert reader is not None
    receiver = BusyPollReceiver()
    receiver.add(reader)

    def write() -> None:
        for i in range(n):
            message = i.to_bytes(4, "little")
            while (sleeps := writer.write(message)) is None:
                pass
            if sleeps:
                out.send(b"")

    thread = threading.Thread(target=write)
    thread.start()
    found: list[int] = []
    rng = np.random.default_rng(0)
    while len(found) < n:
        receiver.n_resting = int(rng.integers(0, 2))  # now asleep, now awake
        [message] = receiver.receive(inbox)
        if message:
            found.append(int.from_bytes(message, "little"))
    thread.join()
    assert found == list(range(n))
    receiver.close()
    writer.close()
    context.destroy(linger=0)


@pytest.mark.parametrize("shared", ["0", "1"])
def test_a_mesh_gives_the_same_sums_with_and_without_shared_memory(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", shared)
    context = zmq.Context()
    ranks = [
        MeshCollective(r, 2, 5, sync_type=SyncType.F32, context=context) for r in range(2)
    ]  # fmt: skip
    peers = [f"tcp://127.0.0.1:{r.bind('127.0.0.1', [0])}" for r in ranks]
    threads = [threading.Thread(target=r.connect, args=(peers, 10.0)) for r in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ways = [ranks[0].links.shares_memory_with(1), ranks[1].links.shares_memory_with(0)]
    assert ways == [shared == "1"] * 2
    # Whoever is where: all have to agree.
    assert [r.n_groups(512, 2048, 16) for r in ranks] == [3, 3]
    xs = [np.random.default_rng(r).standard_normal((700, 512)).astype("f4") for r in range(2)]
    sums: list[np.ndarray] = [np.empty(0)] * 2

    def add(r: int) -> None:
        for n in (1, 700, 3):  # from one row to several blocks
            sums[r] = np.empty((n, 512), np.float32)
            ranks[r].all_reduce(xs[r][:n], sums[r])

    threads = [threading.Thread(target=add, args=(r,)) for r in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in ranks:
        rank.close()
    context.destroy(linger=0)
    assert np.array_equal(sums[0], xs[0][:3] + xs[1][:3])
    assert np.array_equal(sums[0], sums[1])
