"""Messages survive the wire, and nothing else passes for one."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.wire import codec
from cluster.wire.codec import DTYPES, PROTOCOL_VERSION, decode, encode
from cluster.wire.messages import (
    Chunk,
    Credit,
    Failed,
    Hello,
    Join,
    Load,
    Loaded,
    Message,
    OpenSession,
    RankStats,
    StepCall,
    Want,
    pack,
    unpack,
)
from dllama.config import RopeScaling, RopeScalingKind
from dllama.errors import ProtocolError
from dllama.kv_type import KvType
from dllama.qtypes import QType
from dllama.runtime.meter import RankFigures
from dllama.sharding.pieces import Tiling
from dllama.sharding.units import SumUnits
from dllama.step import Step
from dllama.weight_source import TensorInfo
from tests.cluster.array_source import small_config

ONE = np.zeros(1, np.int32)
SCALED = small_config(
    rope_scaling=RopeScaling(RopeScalingKind.YARN, 4.0, 128), rope_factors=(1.0, 2.5)
)
MESSAGES: list[Message] = [
    Hello("0.1.0"),
    OpenSession("host-1", 1, 3, "q80", 123456789),
    Join(["tcp://a:1", "tcp://b:2"], ["tcp://a:1", "tcp://b:3"]),
    Load(
        SCALED,
        [TensorInfo("norm", QType.F32, 1, 32)],
        [Tiling(False, 1, 1, 1, 0)],
        np.zeros((1, 32), np.uint8),
        8,
        KvType.Q8_0,
        64,
        16,
        SumUnits(256, 128, 16),
        QType.Q4_0,
    ),
    Want(ONE),
    Loaded(1, 2, 3, 4),
    Chunk(3, 4096, np.arange(200, dtype=np.uint8)),
    Credit(2),
    StepCall(
        Step(ONE, ONE, np.array([0, 1], np.int32), ONE[None], ONE, ONE), np.zeros((1, 8), np.uint8)
    ),
    RankStats(0, RankFigures(*range(1, 12))),
    Failed("out of memory", -1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_survive_the_wire(message: Message) -> None:
    epoch, read = unpack([bytes(f) for f in pack(message, epoch=7)])
    assert epoch == 7 and type(read) is type(message)
    assert_same(message, read)


def assert_same(message: Any, read: Any) -> None:
    for name in type(message).__slots__:
        want, got = getattr(message, name), getattr(read, name)
        assert type(got) is type(want)
        if isinstance(want, np.ndarray):
            assert got.dtype == want.dtype and (got == want).all() and got.shape == want.shape
        elif isinstance(want, Step):
            assert_same(want, got)
        else:
            assert got == want


@given(
    st.sampled_from(list(DTYPES)),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**63 - 1),
)
def test_arrays_of_any_shape_survive(name: str, shape: list[int], epoch: int) -> None:
    array = np.arange(np.prod(shape), dtype=DTYPES[name]).reshape(shape)
    head, (read,) = decode([bytes(f) for f in encode("Any", epoch, {"x": 1}, [array])])
    assert head == ("Any", epoch, {"x": 1})
    assert read.shape == array.shape and read.dtype == array.dtype and (read == array).all()


def test_columns_of_a_matrix_are_sent_as_they_look() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)[:, 1:3]
    _, (read,) = decode([bytes(f) for f in encode("Any", 0, {}, [array])])
    assert (read == array).all()


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_noise_is_refused(noise: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        unpack(noise)


@given(st.data())
def test_a_damaged_message_is_refused_or_sound(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(MESSAGES))
    wire = [bytearray(f) for f in pack(message, 5)]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from(wire))
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        wire[data.draw(st.integers(0, len(wire) - 1))].append(0)
    try:
        _, read = unpack([bytes(f) for f in wire])
    except ProtocolError:
        return
    pack(read)  # whatever passes has every field, of its type


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["v", "e", "k", "a", "release", "rank", "chunks"]), values))
def test_any_head_is_refused_or_sound(head: dict[str, object]) -> None:
    head = {"v": PROTOCOL_VERSION, "e": 0, "k": "Credit", "a": [], **head}
    try:
        _, message = unpack([msgpack.packb(head)])
    except ProtocolError:
        return
    assert isinstance(message, Credit | Hello)


def test_a_pickle_is_only_noise() -> None:
    with pytest.raises(ProtocolError):
        unpack([pickle.dumps(Hello("x"))])


def test_another_version_is_told_by_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "PROTOCOL_VERSION", 99)
    wire = pack(Hello("9.9.9"))
    monkeypatch.undo()
    versions = rf"protocol 99 \(dllama 9\.9\.9\).*speaks {PROTOCOL_VERSION} \(dllama"
    with pytest.raises(ProtocolError, match=versions):
        unpack(wire)


def test_a_field_too_many_is_named() -> None:
    head = {"v": PROTOCOL_VERSION, "e": 0, "k": "Credit", "a": [], "chunks": 1, "color": 2}
    with pytest.raises(ProtocolError, match=r"chunks, color.*same dllama"):
        unpack([msgpack.packb(head)])


def test_an_array_of_floats_does_not_cross_as_doubles() -> None:
    with pytest.raises(ValueError, match="float64"):
        encode("Any", 0, {}, [np.zeros(3)])


def test_sizes_are_checked_before_use() -> None:
    for shape in ([2], [0], [4, 1 << 40], [-1], [1 << 62, 1 << 62], ["3"], [1.5], [1] * 9):
        head = {"v": PROTOCOL_VERSION, "e": 0, "k": "Any", "a": [["i4", shape]]}
        with pytest.raises(ProtocolError):
            decode([msgpack.packb(head), bytes(4)])
