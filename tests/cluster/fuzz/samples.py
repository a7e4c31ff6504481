"""Valid messages of every kind, made at random from the annotations of their fields."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from cluster.wire.codec import Codec, Frame
from dllama.array_limits import Array
from dllama.limits import MaxLength, MultipleOf, Range

WORDS = ["", "x", "f32", "llama", "127.0.0.1", "a\0b", "ä", "../../etc", "tcp://127.0.0.1:1"]
NUMBERS = [0.0, -1.0, 0.8, 1e9, 1e-9, math.inf, -math.inf, math.nan]


def sample(kind: Any, rng: random.Random) -> Any:
    """A message of a kind, each field within its limits."""
    hints = get_type_hints(kind, include_extras=True)
    values = {field.name: _value(hints[field.name], rng) for field in fields(kind)}
    return kind(**values)


def messages(codec: Codec[Any], rng: random.Random) -> Iterator[tuple[Any, list[bytes]]]:
    """Endless messages of a codec, with their frames, in an order of its own."""
    kinds = [record.cls for record in codec.kinds.values()]
    while True:
        kind = rng.choice(kinds)
        message = sample(kind, rng)
        frames: list[Frame] = codec.pack(message, rng.choice([0, 5, rng.getrandbits(62)]))
        yield message, [bytes(frame) for frame in frames]


def _limit(hint: Any, kind: type) -> Any:
    return next((x for x in getattr(hint, "__metadata__", ()) if isinstance(x, kind)), None)


def _value(hint: Any, rng: random.Random) -> Any:
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    origin, args = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        inner = next(a for a in args if a is not type(None))
        return None if rng.random() < 0.5 else _value(inner, rng)
    if origin in (list, tuple):
        return origin(_value(args[0], rng) for _ in range(rng.randrange(4)))
    if origin is dict:
        return {_value(args[0], rng): _value(args[1], rng) for _ in range(rng.randrange(3))}
    if bare is np.ndarray:
        array = _limit(hint, Array)
        shape = [rng.randrange(5) for _ in range(array.ndim)]
        return np.frombuffer(rng.randbytes(4 * math.prod(shape)), np.uint8)[
            : math.prod(shape) * np.dtype(array.dtype).itemsize
        ].view(array.dtype).reshape(shape)  # fmt: skip
    if is_dataclass(bare):
        return sample(bare, rng)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return rng.choice(list(bare))
    return _scalar(bare, hint, rng)


def _scalar(bare: Any, hint: Any, rng: random.Random) -> Any:
    if bare is int:
        bounds = _limit(hint, Range) or Range(-9, 9)
        small = range(max(bounds.low, -9), min(bounds.high, 9) + 1)
        edges = [bounds.low, bounds.high]
        return rng.choice([*(small or edges), *edges])
    if bare is bytes:
        return rng.randbytes(rng.randrange(4)) * (_limit(hint, MultipleOf) or MultipleOf(1)).n
    if bare is str:
        longest = _limit(hint, MaxLength) or MaxLength(40)
        return rng.choice(WORDS)[: longest.n]
    if bare is bool:
        return rng.random() < 0.5
    if bare is float:
        return rng.choice(NUMBERS)
    assert bare is object, f"no sample of {hint}"
    return rng.choice([None, 1, "x", [1, "y"], {"a": [2.5]}])
