"""Everything that reads bytes of a peer, in this process and without sockets: each takes what it is
given or raises DllamaError, and nothing else. What a check lets pass is checked again, plainly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import zmq

from api.engines.messages import MessageClient
from cluster.front.frame_meter import FrameMeter
from cluster.mesh.links import HEADER, MAGIC, MeshLinks
from cluster.mesh.shared_ring import IS_SUPPORTED, RingReader, RingWriter
from cluster.wire import engine_messages
from cluster.wire import messages as node_messages
from cluster.wire.checks import check_manifest
from cluster.wire.codec import Codec, epoch_of
from cluster.wire.messages import KvCall, Load, StepCall
from cluster.wire.model_checks import check_config
from cluster.wire.step_checks import KvRoom, RankLimits, check_kv_call, check_shift, checked_step
from dllama.errors import DllamaError
from dllama.kv import KvShift
from dllama.requests import EngineState, FromEngine, ToEngine
from dllama.runtime.logit_rows import merge_parts
from dllama.step import PAGE_TOKENS, Step
from kernels.wire.rings import HEADER_BYTES, N_SLOTS, READ, SLOT_BYTES
from tests.cluster.front.zmtp import GREETING, READY, frame
from tests.cluster.fuzz.mutations import mutate
from tests.cluster.fuzz.samples import messages

LIMITS = RankLimits(
    max_step_tokens=16, n_pages=8, max_seq_len=200, vocab_size=100, embed_row_bytes=4
)
EPOCH = 77
Decoder = Callable[[random.Random], Iterator[None]]
"""Endless inputs; one is read for each `next`."""


def _messages(codec: Codec[Any]) -> Decoder:
    def run(rng: random.Random) -> Iterator[None]:
        client = _Client(EngineState("ready"), 8)
        valid = messages(codec, rng)
        while True:
            _, frames = next(valid)
            for _ in range(8):
                damaged = mutate(frames, rng)
                epoch_of(damaged)
                with suppress(DllamaError):
                    _, message = codec.unpack(damaged)
                    _use(message, client)
                yield

    return run


class _Client(MessageClient):
    """The server's end of an engine link, without the link."""

    def _send(self, message: ToEngine) -> None:
        raise AssertionError("nothing is sent")


def _use(message: Any, client: _Client) -> None:
    """Checks a message as its receiver does, before it is used."""
    if isinstance(message, StepCall):
        checked_step(message, LIMITS)
    elif isinstance(message, KvShift):
        check_shift(message, LIMITS)
    elif isinstance(message, KvCall):
        check_kv_call(message, KvRoom(LIMITS.n_pages))
        assert "/" not in message.name and message.name.strip(".")
    elif isinstance(message, Load):
        check_config(message.config)
        check_manifest(message.manifest, 1 << 30)
        assert sum(info.n_bytes for info in message.manifest) <= 1 << 30
    elif isinstance(message, FromEngine):
        client._receive(message)


def steps(rng: random.Random) -> Iterator[None]:
    """Steps whose arrays do not fit each other, and shifts."""
    arrays = [name for name in Step.__slots__ if name != "requests"]
    values = [-(2**31), -1, 0, 1, 2, 7, 8, 9, 31, 32, 199, 200, 2**31 - 1]
    while True:
        call = StepCall(_valid_step(rng), np.zeros((1, 4), np.uint8))
        changed = {}
        for name in rng.sample(arrays, rng.choice([0, 1, 1, 2])):
            array = getattr(call.step, name).copy()
            if array.size and rng.random() < 0.7:
                array.flat[rng.randrange(array.size)] = rng.choice(values)
            else:
                array = array[rng.randrange(len(array) + 1) :]
            changed[name] = array
        step = replace(call.step, **changed)
        rows = np.zeros((max(0, step.n_tokens - rng.randrange(20) // 19), 4), np.uint8)
        with suppress(DllamaError):
            _assert_within(checked_step(StepCall(step, rows), LIMITS))
        yield


def _valid_step(rng: random.Random) -> Step:
    lengths = [rng.randrange(1, 5) for _ in range(rng.randrange(1, 4))]
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    firsts = [rng.randrange(60) for _ in lengths]
    positions = np.concatenate([f + np.arange(n) for f, n in zip(firsts, lengths, strict=True)])
    n = int(starts[-1])
    return Step(
        tokens=np.array([rng.randrange(100) for _ in range(n)], np.int32),
        positions=positions.astype(np.int32),
        starts=starts,
        pages=np.array([[rng.randrange(8) for _ in range(2)] for _ in lengths], np.int32),
        logits_at=np.array([n - 1], np.int32),
        candidates=np.array([rng.choice([0, 1, 256])], np.int32),
        copies=np.array([[0, 1]] * rng.randrange(2), np.int32).reshape(-1, 2),
    )


def _assert_within(step: Step) -> None:
    """What kernels index memory by, token by token."""
    n = step.n_tokens
    assert all(0 <= t < LIMITS.vocab_size for t in step.tokens)
    assert all(0 <= r < n for r in step.logits_at) and len(step.candidates) == len(step.logits_at)
    assert all(0 <= p < LIMITS.n_pages for p in step.copies.flat)
    owner = [s for s in range(len(step.starts) - 1) for _ in range(*step.starts[s : s + 2])]
    assert len(owner) == n
    for s, position in zip(owner, step.positions, strict=True):
        assert 0 <= position < LIMITS.max_seq_len
        for page in step.pages[s, : position // PAGE_TOKENS + 1]:
            assert 0 <= page < LIMITS.n_pages


def mesh(rng: random.Random) -> Iterator[None]:
    """Frames on a rank's inbox, of strangers and of ranks that send nonsense."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        while True:
            links = MeshLinks(0, EPOCH, context)
            links.sequence = rng.randrange(3)
            for _ in range(500):
                with suppress(DllamaError):
                    links.keep(_mesh_frames(rng))
                yield
    finally:
        context.destroy(linger=0)


def _mesh_frames(rng: random.Random) -> list[bytes]:
    words = [0, 1, 2, 3, 63, 64, 65, 255, 2**16 - 1, 2**31, 2**32 - 1]
    head = HEADER.pack(
        rng.choice([MAGIC, MAGIC, MAGIC, b"dlm0"]),
        rng.choice([0, 1, 2, 3, 4, 255]),
        rng.choice([0, 1, 2, 2**16 - 1]),
        rng.choice(words),
        rng.choice([EPOCH, EPOCH, EPOCH, 0, 2**64 - 1]),
        rng.choice([*words, 2**64 - 1]),
        rng.choice([0, 2**64 - 1]),
    )
    frames = [head + rng.randbytes(rng.choice([0, 1, 24, 4096]))]
    return mutate(frames, rng) if rng.random() < 0.3 else frames


def ring(rng: random.Random) -> Iterator[None]:
    """A ring whose writer puts anything anywhere, and offers that are damaged."""
    lengths = [0, 1, 48, 2**20, 2**20 + 4096, -1, 2**62, -(2**63)]
    while IS_SUPPORTED:
        writer = RingWriter()
        offer = bytearray(writer.offer)
        offer[rng.randrange(len(offer))] = rng.randrange(256)
        with closing(writer), suppress(DllamaError):
            other = RingReader.attach(bytes(offer))
            if other is not None:
                other.close()
            reader = RingReader.attach(writer.offer)
            assert reader is not None
            with closing(reader):
                for _ in range(200):
                    at = HEADER_BYTES + int(reader.words[READ]) % N_SLOTS * SLOT_BYTES
                    n = rng.choice(lengths).to_bytes(8, "little", signed=True)
                    writer._memory[at : at + 8] = n
                    with suppress(DllamaError):
                        assert 0 < len(reader.take()) <= SLOT_BYTES
                    yield


def zmtp(rng: random.Random) -> Iterator[None]:
    """Byte streams of a stranger's connection, in pieces."""
    while True:
        stream = bytearray(GREETING + READY + frame(rng.randbytes(rng.randrange(300))))
        for _ in range(rng.randrange(3)):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        stream += rng.randbytes(rng.choice([0, 5, 200]))
        meter, at = FrameMeter(1 << 14), 0
        with suppress(DllamaError):
            while at < len(stream):
                at += meter.take(stream[at : at + rng.randrange(1, 100)], rng.randrange(1, 4))
        yield


def logits(rng: random.Random) -> Iterator[None]:
    """Pieces of logits that a rank sends to rank 0."""
    words = [0, 1, 2, 3, 5, -1, 2**31 - 1, -(2**31)]
    while True:
        counts = np.array([rng.choice([0, 1, 2])], np.int32)
        parts = []
        for n_vocab in (3, 2):
            k = min(int(counts[0]), n_vocab)
            ids = [rng.randrange(5) for _ in range(k)]
            part = [n_vocab, *rng.choices(words, k=2), *ids, *rng.choices(words, k=k or n_vocab)]
            for _ in range(rng.randrange(3)):
                part[rng.randrange(len(part))] = rng.choice(words)
            parts.append(np.array(part, np.int32).tobytes()[: rng.choice([None, None, -1, -4])])
        with suppress(DllamaError):
            for row in merge_parts(parts, counts, 512, 5):
                assert row.ids is not None or row.logits.shape == (5,)
                assert row.ids is None or all(0 <= i < 5 for i in row.ids)
        yield


DECODERS: dict[str, Decoder] = {
    "node messages": _messages(node_messages.CODEC),
    "engine messages": _messages(engine_messages.CODEC),
    "steps": steps,
    "mesh frames": mesh,
    "shared ring": ring,
    "ZMTP streams": zmtp,
    "logits": logits,
}
