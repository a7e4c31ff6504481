"""Lines and streams: what goes in comes out once and in order, sealed or plain, and whatever
somebody on the way changes, repeats or cuts off breaks the connection and passes for no message."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.mesh.libraries import AEGIS, CHACHA, CIPHERS, Sealing, sealings
from cluster.mesh.line import Line
from cluster.mesh.meeting import uses_connections
from cluster.mesh.sealing import Keys
from cluster.mesh.stream import Bell, Stream
from kernels.wire import frames, lines, streams

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.timeout(200),
    pytest.mark.skipif(not uses_connections(), reason="connections of ranks need Linux"),
]

KEYS = bytes(range(32)), bytes(range(32, 64))
Sealed = Sealing | None


def sealing_of(name: str) -> Sealed:
    if name == "plain":
        return None
    found = next(s for s, c in zip(sealings(), CIPHERS, strict=True) if c.name == name)
    if found is None:
        pytest.skip(f"{name} is nothing for this processor, or its libsodium does not have it")
    return found


def both_keys(sealing: Sealed) -> tuple[Keys | None, Keys | None]:
    if sealing is None:
        return None, None
    return Keys(sealing, *KEYS), Keys(sealing, *KEYS[::-1])


def connected() -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


def until(found: Callable[[], object], within_s: float = 20.0) -> object:
    """What is found, as soon as it is true."""
    end = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.0005)
    return value


@pytest.fixture(params=["plain", *(cipher.name for cipher in CIPHERS)])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Line, Line]]:
    keys = both_keys(sealing_of(request.param))
    both = [Line(s, k) for s, k in zip(connected(), keys, strict=True)]
    yield both[0], both[1]
    for line in both:
        line.close()


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


def test_ciphers_are_those_that_libsodium_has() -> None:
    """pyzmq's wheels bring libsodium along, and every processor can use ChaCha20."""
    assert sealings()[CIPHERS.index(CHACHA)] is not None
    about = Path("/proc/cpuinfo").read_text().splitlines()
    flags = "".join(line for line in about if line.startswith(("flags", "Features")))
    assert (sealings()[CIPHERS.index(AEGIS)] is not None) == (" aes" in flags)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=6), st.booleans(), st.randoms())
def test_a_lines_messages_come_out_as_they_went_in(
    sizes: list[int], is_sealed: bool, random: object
) -> None:
    keys = both_keys(sealing_of(CHACHA.name) if is_sealed else None)
    one, other = (Line(s, k) for s, k in zip(connected(), keys, strict=True))
    rng = np.random.default_rng(len(sizes))
    for source, sink in ((one, other), (other, one)):
        messages = [rng.integers(0, 256, n, np.uint8).tobytes() for n in sizes]
        for message in messages:
            assert source.write(message)
        assert [until(sink.take) for _ in messages] == messages
        assert sink.take() == b"" and not sink.why_broken
    one.close()
    other.close()


def test_a_message_that_the_system_does_not_take_at_once_is_sent_on_while_the_rank_looks() -> None:
    ends = connected()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one, other = (Line(s) for s in ends)
    long = bytes(range(256)) * 1000
    n_written = 0
    while one.write(long):
        n_written += 1
        assert n_written < 100
    assert one.is_sending and n_written >= 1
    assert not one.write(b"x"), "the message before is not through"

    def next_message() -> bytes:
        one.take()  # sends on
        return other.take()

    assert [until(next_message) for _ in range(n_written)] == [long] * n_written
    assert not one.is_sending and one.write(b"and on")
    assert until(other.take) == b"and on"
    one.close()
    other.close()


def test_a_message_that_is_too_long_goes_another_way(pair: tuple[Line, Line], bell: Bell) -> None:
    assert not pair[0].write(bytes(lines.MAX_MESSAGE_BYTES + 1))
    assert pair[0].write(bytes(lines.MAX_MESSAGE_BYTES))
    assert until(pair[1].take) == bytes(lines.MAX_MESSAGE_BYTES)
    ends = connected()
    stream = Stream(ends[0], bell)
    assert not stream.write(bytes(streams.MAX_MESSAGE_BYTES + 1))
    stream.close()
    ends[1].close()


@pytest.mark.parametrize("name", [cipher.name for cipher in CIPHERS])
def test_what_is_sealed_is_never_seen_and_never_twice_the_same(name: str, bell: Bell) -> None:
    keys, secret = both_keys(sealing_of(name))[0], b"what nobody is to see" * 5
    ends = connected()
    line = Line(ends[0], keys)
    for _ in range(3):
        line.write(secret)
    seen = ends[1].recv(1 << 16)
    line.close()
    ends[1].close()
    ends = connected()
    stream = Stream(ends[0], bell, keys)
    for _ in range(3):
        assert stream.write(secret)
    seen_too = b""
    while len(seen_too) < len(seen):
        seen_too += ends[1].recv(1 << 16)
    stream.close()
    ends[1].close()
    for found in (seen, seen_too):
        n = len(found) // 3
        parts = {found[i * n + 8 : (i + 1) * n] for i in range(3)}
        assert len(found) == 3 * n and len(parts) == 3
        assert not any(secret[:8] in part for part in parts)


def frames_of(keys: Keys | None, *messages: bytes) -> list[bytes]:
    """The frames of some messages as a rank sends them, one after the other."""
    ends = connected()
    line, found = Line(ends[0], keys), []
    for message in messages:
        line.write(message)
        found.append(ends[1].recv(1 << 16))
    line.close()
    ends[1].close()
    return found


FAULTS = {
    "a bit is turned": (lambda f: f[0][:20] + bytes([f[0][20] ^ 1]) + f[0][21:], "was changed"),
    "its tag is turned": (lambda f: f[0][:-1] + bytes([f[0][-1] ^ 128]), "was changed"),
    "a frame comes twice": (lambda f: f[0] + f[0], "was changed"),
    "a frame is left out": (lambda f: f[1], "was changed"),
    "frames change places": (lambda f: f[1] + f[0], "was changed"),
    "it is cut off": (lambda f: f[0][:-5], "was closed"),
    "a length that no message has": (lambda f: (1 << 40).to_bytes(8, "little"), "no message"),
    "a length below zero": (lambda f: (-5).to_bytes(8, "little", signed=True), "no message"),
    "an empty body": (lambda f: bytes(8), "no message"),
}


@pytest.mark.parametrize("kind", ["line", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_somebody_on_the_way_does_breaks_the_connection(
    fault: str, kind: str, bell: Bell
) -> None:
    change, why = FAULTS[fault]
    ours, theirs = both_keys(sealing_of(CHACHA.name))
    sent = change(frames_of(theirs, b"the first message", b"and the second one"))
    ends = connected()
    end: Line | Stream = Line(ends[0], ours) if kind == "line" else Stream(ends[0], bell, ours)
    ends[1].sendall(sent)
    ends[1].close()
    came: list[bytes] = []

    def has_broken() -> bool:
        came.extend(filter(None, [end.take()]))
        return bool(end.why_broken)

    until(has_broken)
    came.extend(filter(None, [end.take()]))  # what came before it broke is there all the same
    assert why in end.why_broken or fault == "a frame comes twice"
    assert came == ([b"the first message"] if fault == "a frame comes twice" else [])
    until(lambda: not end.write(b"no more") or bool(time.sleep(0.01)))
    end.close()


def test_a_streams_messages_come_out_as_they_went_in(bell: Bell) -> None:
    """Far more than the system's buffers and the rings hold, both ways at once."""
    keys = both_keys(sealing_of(CHACHA.name))
    one, other = (Stream(s, bell, k) for s, k in zip(connected(), keys, strict=True))
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, streams.MAX_MESSAGE_BYTES, 60).tolist()
    found: dict[int, list[int]] = {0: [], 1: []}

    def talk(number: int, own: Stream) -> None:
        sent = 0
        while sent < len(sizes) or len(found[number]) < len(sizes):
            if sent < len(sizes) and own.write(bytes([sent]) * sizes[sent]):
                sent += 1
            if message := own.take():
                assert message == message[:1] * sizes[message[0]]
                found[number].append(message[0])

    threads = [threading.Thread(target=talk, args=both) for both in enumerate((one, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == {0: list(range(60)), 1: list(range(60))}
    one.close()
    other.close()


def test_a_stream_rings_when_its_reader_sleeps(bell: Bell) -> None:
    one, other = (Stream(s, bell) for s in connected())
    bell.is_needed(True)
    one.write(b"wake up")
    assert select.select([bell.fd], [], [], 20)[0] == [bell.fd]
    bell.silence()
    assert until(other.take) == b"wake up"
    bell.is_needed(False)
    one.write(b"at your leisure")
    assert until(other.take) == b"at your leisure"
    assert not select.select([bell.fd], [], [], 0.05)[0]
    one.close()
    other.close()


def test_a_stream_ends_whatever_its_threads_wait_for(bell: Bell) -> None:
    """The peer reads nothing, so that one thread is stuck in the middle of a message."""
    ends = connected()
    stream, n_queued = Stream(ends[0], bell), 0
    while stream.write(bytes(streams.MAX_MESSAGE_BYTES)):
        n_queued += 1
    assert n_queued >= streams.N_SLOTS
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 10
    ends[1].close()


def test_a_connection_that_is_gone_says_so(pair: tuple[Line, Line], bell: Bell) -> None:
    pair[0].close()
    until(lambda: pair[1].take() or pair[1].why_broken)
    assert pair[1].why_broken in ("it was closed", "Connection reset by peer")
    one, other = (Stream(s, bell) for s in connected())
    one.close()
    until(lambda: other.why_broken)
    with suppress(OSError):
        assert not other.write(b"x")
    other.close()
    assert frames.CLOSED < 0
