"""What holds of every message of both tables: it survives the trip, and whatever is done to its
bytes or its fields, a receiver gets a ProtocolError or a whole message."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.wire import engine_messages, messages, store_messages
from cluster.wire.codec import Codec
from cluster.wire.records import record_of
from dllama.array_limits import Array
from dllama.errors import ProtocolError
from dllama.limits import MaxLength, MultipleOf, Range

CODECS: list[Codec[Any]] = [messages.CODEC, engine_messages.CODEC, store_messages.CODEC]
KINDS = [(codec, record.cls) for codec in CODECS for record in codec.kinds.values()]
every_message = pytest.mark.parametrize(
    ("codec", "kind"), KINDS, ids=[kind.__name__ for _, kind in KINDS]
)
texts = st.text(max_size=5)
numbers = st.floats(allow_nan=False)
integers = st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(
    st.none() | st.booleans() | integers | numbers | texts | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | integers, inner),
    max_leaves=6,
)


def hints(kind: Any) -> dict[str, Any]:
    """The annotations of the fields that travel."""
    found = get_type_hints(kind, include_extras=True)
    return {f.name: found[f.name] for f in fields(kind)}


def limit(hint: Any, kind: type) -> Any:
    return next((x for x in getattr(hint, "__metadata__", ()) if isinstance(x, kind)), None)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type, within its limits."""
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    origin, args = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        return st.none() | values(next(a for a in args if a is not type(None)))
    if origin in (list, tuple):
        return st.lists(values(args[0]), max_size=3).map(origin)
    if origin is dict and args[1] is object:
        trees = st.recursive(numbers | texts, lambda t: st.lists(t, max_size=2), max_leaves=4)
        return st.dictionaries(texts, trees, max_size=2)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if bare is np.ndarray:
        array = limit(hint, Array)
        shapes = hnp.array_shapes(min_dims=array.ndim, max_dims=array.ndim, min_side=0, max_side=3)
        return hnp.arrays(array.dtype, shapes)
    if bare is int:
        bounds = limit(hint, Range)
        return integers if bounds is None else st.integers(bounds.low, bounds.high)
    if bare is bytes:
        return st.binary(max_size=3).map(lambda b: b * limit(hint, MultipleOf).n)
    if is_dataclass(bare):
        return whole(bare)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return st.sampled_from(bare)
    return {float: numbers, bool: st.booleans(), str: texts}[bare]


def whole(kind: Any) -> st.SearchStrategy[Any]:
    """Messages of a kind."""
    return st.builds(kind, **{name: values(hint) for name, hint in hints(kind).items()})


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for name in hints(type(a)):
        mine, other = getattr(a, name), getattr(b, name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == other.dtype and np.array_equal(mine, other)
        elif is_dataclass(mine):
            assert_same(mine, other)
        else:
            assert mine == other and type(mine) is type(other)


@every_message
@settings(max_examples=15)  # of each kind
@given(data=st.data(), epoch=st.integers(0, 2**63 - 1))
def test_a_message_survives_the_trip(
    codec: Codec[Any], kind: Any, data: st.DataObject, epoch: int
) -> None:
    sent = data.draw(whole(kind))
    its_epoch, received = codec.unpack([bytes(f) for f in codec.pack(sent, epoch)])
    assert its_epoch == epoch
    assert_same(sent, received)


@every_message
@settings(max_examples=15)  # of each kind
@given(data=st.data())
def test_damaged_bytes_are_refused_or_a_whole_message(
    codec: Codec[Any], kind: Any, data: st.DataObject
) -> None:
    wire = [bytearray(frame) for frame in codec.pack(data.draw(whole(kind)))]
    for _ in range(data.draw(st.integers(1, 3))):
        frame = data.draw(st.sampled_from(wire))
        at = data.draw(st.integers(0, len(frame)))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    if data.draw(st.booleans()):
        del wire[data.draw(st.integers(0, len(wire) - 1))]
    assert_refused_or_whole(codec, [bytes(frame) for frame in wire])


@every_message
@settings(max_examples=15)  # of each kind
@given(data=st.data())
def test_other_fields_are_refused_or_a_whole_message(
    codec: Codec[Any], kind: Any, data: st.DataObject
) -> None:
    """Any part of a head, at any depth, becomes something else, goes, or gets company."""
    head, *arrays = [bytes(frame) for frame in codec.pack(data.draw(whole(kind)))]
    tree = msgpack.unpackb(head, strict_map_key=False)
    where = tree
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    what = data.draw(st.sampled_from(["other", "gone", "more"]))
    if what == "gone":
        del where[key]
    elif what == "more" and isinstance(where, dict):
        where[data.draw(texts)] = data.draw(plain)
    else:
        where[key] = data.draw(plain)
    assert_refused_or_whole(codec, [msgpack.packb(tree), *arrays])


def assert_refused_or_whole(codec: Codec[Any], wire: list[bytes]) -> None:
    try:
        epoch, received = codec.unpack(wire)
    except ProtocolError:
        return
    assert type(received) in [record.cls for record in codec.kinds.values()]
    codec.pack(received, epoch)


def limited_fields() -> list[tuple[Any, str, Any]]:
    """Every field with a limit, of every class that travels, itself or inside of another."""
    found: dict[tuple[Any, str], Any] = {}
    classes = [kind for _, kind in KINDS]
    for kind in classes:
        for name, hint in hints(kind).items():
            for inner in (hint, *get_args(hint), *(a for b in get_args(hint) for a in get_args(b))):
                if isinstance(inner, type) and is_dataclass(inner) and inner not in classes:
                    classes.append(inner)
            args = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
            bare = next(a for a in args if a is not type(None))
            if any(limit(bare, kind_of) for kind_of in (Range, MaxLength, Array)):
                found[kind, name] = bare
    return [(kind, name, hint) for (kind, name), hint in found.items()]


def test_there_are_limits_to_test() -> None:
    assert len(limited_fields()) > 40


def beyond(hint: Any) -> list[Any]:
    """Values just outside of a field's limit."""
    if limit(hint, Range):
        return [limit(hint, Range).low - 1, limit(hint, Range).high + 1, True, 1.0]
    if limit(hint, Array):
        dtype, ndim = np.dtype(limit(hint, Array).dtype), limit(hint, Array).ndim
        other = np.dtype("<f4")
        return [np.zeros([2] * ndim, other), np.zeros([2] * (ndim + 1), dtype), np.zeros((), dtype)]
    n = limit(hint, MaxLength).n
    return [{str: "x", bytes: b"x"}.get(get_args(hint)[0], [0]) * (n + 1)]


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    limited_fields(),
    ids=[f"{kind.__name__}.{name}" for kind, name, _ in limited_fields()],
)
@settings(max_examples=3)
@given(data=st.data())
def test_what_is_just_beyond_a_limit_is_refused_by_name(
    kind: Any, name: str, hint: Any, data: st.DataObject
) -> None:
    record, arrays = record_of(kind), []  # type: ignore[var-annotated]
    raw = msgpack.unpackb(
        msgpack.packb(record.to_map(data.draw(whole(kind)), arrays), default=to_plain),
        strict_map_key=False,
    )
    array_names = [n for n, h in hints(kind).items() if limit(h, Array)]
    for value in beyond(hint):
        if name in array_names:
            arrays[array_names.index(name) - len(array_names)] = value
        else:
            raw[name] = value
        with pytest.raises(ProtocolError, match=f"the field '{name}' of an? {kind.__name__}"):
            record.build(raw, iter(arrays))


def to_plain(value: Any) -> Any:
    return record_of(type(value)).to_map(value, [])
