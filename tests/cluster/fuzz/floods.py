"""Floods: hostile frames into real sockets, as fast as they are taken, and byte streams that are no
ZeroMQ at all. Counts what has left this process."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import zmq

from cluster.mesh.links import HEADER, MAGIC
from cluster.security.epoch_links import connect_plain
from cluster.sockets import endpoint
from cluster.wire.codec import Codec
from tests.cluster.front.zmtp import GREETING, READY, frame
from tests.cluster.fuzz.mutations import Frames, mutate
from tests.cluster.fuzz.samples import messages

Meanwhile = Callable[[], None]
LINKS = 8
BURST = 64  # frames between two looks at what goes on meanwhile
RENEW = 500  # frames of one link before another takes its place
IDLE_S = 0.002


def hostile_messages(codec: Codec[object], rng: random.Random) -> Iterator[Frames]:
    """Damaged messages, whole ones, and the same ones again."""
    valid, seen = messages(codec, rng), [[b""]]
    while True:
        _, frames = next(valid)
        for _ in range(4):
            choice = rng.random()
            if choice < 0.1:
                yield rng.choice(seen)
            else:
                yield frames if choice < 0.2 else mutate(frames, rng)
        seen = [*seen[-50:], frames]


def hostile_mesh_frames(rng: random.Random, world_size: int) -> Iterator[Frames]:
    """Frames of ranks of another session, and noise."""
    while True:
        head = HEADER.pack(
            rng.choice([MAGIC, MAGIC, b"dlm0"]), rng.randrange(5), rng.randrange(world_size + 1),
            rng.choice([0, 1, 2**32 - 1]), rng.getrandbits(63), rng.choice([0, 1, 2, 2**64 - 1]), 0,
        )  # fmt: skip
        frames = [head + rng.randbytes(rng.choice([0, 32, 3000]))]
        yield mutate(frames, rng) if rng.random() < 0.4 else frames


def flood(
    where: Sequence[str],
    kind: int,
    frames: Iterator[Frames],
    n_frames: int,
    meanwhile: Meanwhile,
    deadline_s: float,
    epoch: int = 0,
) -> int:
    """Sends up to n_frames messages over several links of a kind to each endpoint, and returns how
    many were taken before the deadline. With an epoch, the links' handshakes tell it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links = [_open(context, kind, at, epoch) for at in where for _ in range(LINKS)]
    n_sent, until = 0, time.monotonic() + deadline_s
    n_of = [0] * len(links)
    while n_sent < n_frames and time.monotonic() < until:
        n_before = n_sent
        for i in range(len(links)):
            n_taken = _burst(links[i], frames)
            n_sent += n_taken
            n_of[i] += n_taken
            if n_of[i] > RENEW:
                links[i].close(0)
                links[i], n_of[i] = _open(context, kind, where[i // LINKS], epoch), 0
        meanwhile()
        if n_sent == n_before:
            time.sleep(IDLE_S)
    meanwhile()
    context.destroy(linger=0)
    return n_sent


def _open(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, where: str, epoch: int
) -> zmq.Socket[bytes]:
    made = context.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 64)
    made.setsockopt(zmq.IMMEDIATE, 1)
    made.setsockopt(zmq.RECONNECT_IVL, 10)
    if epoch:
        connect_plain(made, epoch)
    made.connect(where)
    return made


def _burst(link: zmq.Socket[bytes], frames: Iterator[Frames]) -> int:
    for n in range(BURST // LINKS):
        try:
            link.send_multipart(next(frames), zmq.NOBLOCK)
        except zmq.Again:
            return n
        if link.type == zmq.DEALER and link.poll(0):
            link.recv_multipart(zmq.NOBLOCK)
    return BURST // LINKS


def raw_streams(rng: random.Random) -> Iterator[bytes]:
    """What connects to a port and is no ZeroMQ, or no whole one."""
    ready = GREETING + READY
    while True:
        yield rng.choice(
            [
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                rng.randbytes(rng.randrange(1, 500)),
                GREETING[: rng.randrange(1, 64)],
                GREETING + rng.randbytes(30),
                GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32) + rng.randbytes(200),
                ready + b"\x02" + (2**63 - 1).to_bytes(8),
                ready + frame(b"x" * 3000, more=True) * 50,
                ready + frame(b"") * 300,
                ready + bytes([4, 5]) + b"\x04PING",
                ready[:-3],
            ]
        )


def raw_flood(
    ports: Sequence[int], streams: Iterator[bytes], n: int, meanwhile: Meanwhile, deadline_s: float
) -> int:
    """Opens n connections in turn, says something on each, and leaves the last 32 open."""
    until, held, n_made = time.monotonic() + deadline_s, [], 0
    while n_made < n and time.monotonic() < until:
        try:
            made = socket.create_connection(("127.0.0.1", ports[n_made % len(ports)]), 1.0)
        except OSError:
            meanwhile()
            continue
        made.setblocking(False)
        held.append(made)
        n_made += 1
        with suppress(OSError):
            made.send(next(streams))
        if len(held) > 32:
            held.pop(0).close()
        if n_made % 16 == 0:
            meanwhile()
    meanwhile()
    for each in held:
        each.close()
    return n_made


def on_loopback(ports: Sequence[int]) -> list[str]:
    return [endpoint("127.0.0.1", port) for port in ports]
