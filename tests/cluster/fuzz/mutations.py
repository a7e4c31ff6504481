"""What may become of a message on its way from somebody hostile: structure-aware damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgpack

Frames = list[bytes]
ODD = [
    None, True, False, -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1, -(2**63), 1.5, float("nan"),
    float("inf"), "", "x", "\0", "../../x", b"", b"\xff" * 9, [], [[]], {}, {"a": 1}, [0] * 1000,
    "y" * 3000, {"k": {}}, [-1], [2**63],
]  # fmt: skip


def mutate(frames: Frames, rng: random.Random) -> Frames:
    """A message with one to three kinds of damage."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        frames = rng.choice(MUTATIONS)(list(frames), rng)
    return frames


def _of_head(change: Callable[[dict[Any, Any], random.Random], None]) -> Any:
    def apply(frames: Frames, rng: random.Random) -> Frames:
        try:
            head = msgpack.unpackb(frames[0], strict_map_key=False)
            change(head, rng)
            frames[0] = msgpack.packb(head)
        except Exception:  # an earlier mutation has left no head
            return _flip(frames, rng)
        return frames

    return apply


def _set_field(head: dict[Any, Any], rng: random.Random) -> None:
    _set_within(head, rng, 0)


def _set_within(tree: Any, rng: random.Random, depth: int) -> None:
    """Replaces a value somewhere in a tree of maps and lists."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(tree[key], dict | list) and tree[key] and depth < 6 and rng.random() < 0.7:
        _set_within(tree[key], rng, depth + 1)
    else:
        tree[key] = rng.choice(ODD)


def _drop_field(head: dict[Any, Any], rng: random.Random) -> None:
    head.pop(rng.choice(list(head)))


def _add_field(head: dict[Any, Any], rng: random.Random) -> None:
    head[rng.choice(["x", "", 7, "release", "a"])] = rng.choice(ODD)


def _version(head: dict[Any, Any], rng: random.Random) -> None:
    head["v"] = rng.choice([0, 1, 3, 99, True, "4", None, 2**63])


def _epoch(head: dict[Any, Any], rng: random.Random) -> None:
    head["e"] = rng.choice([0, 1, 5, -1, 2**63, True, "5", None, rng.getrandbits(62)])


def _kind(head: dict[Any, Any], rng: random.Random) -> None:
    kinds = [
        "Hello",
        "OpenSession",
        "Load",
        "StepCall",
        "Submit",
        "StepDone",
        "",
        5,
        None,
        "x" * 99,
    ]
    head["k"] = rng.choice(kinds)


def _arrays(head: dict[Any, Any], rng: random.Random) -> None:
    shapes = [[2**30, 2**30], [-1], [0], [2**40], [1, 1, 1, 1, 1], [2**30, 0], [True], [1.5], "x"]
    entry = [rng.choice(["u1", "i4", "f4", "f8", "O", 3]), rng.choice(shapes)]
    described = head["a"]
    if described and rng.random() < 0.7:
        described[rng.randrange(len(described))] = entry
    else:
        described.append(entry)


def _flip(frames: Frames, rng: random.Random) -> Frames:
    at = rng.randrange(len(frames))
    damaged = bytearray(frames[at] or b"\0")
    for _ in range(rng.choice([1, 1, 4])):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    frames[at] = bytes(damaged)
    return frames


def _truncate(frames: Frames, rng: random.Random) -> Frames:
    at = rng.randrange(len(frames))
    frames[at] = frames[at][: rng.randrange(len(frames[at]) + 1)]
    return frames


def _lengthen(frames: Frames, rng: random.Random) -> Frames:
    at = rng.randrange(len(frames))
    frames[at] += rng.randbytes(rng.choice([1, 4, 100]))
    return frames


def _other_shape(frames: Frames, rng: random.Random) -> Frames:
    """More frames, fewer, none of them the head, many of them."""
    shape = rng.randrange(5)
    if shape == 0:
        return [*frames, rng.randbytes(rng.randrange(20))]
    if shape == 1:
        return frames[1:] or [b""]
    if shape == 2:
        return frames[::-1]
    if shape == 3:
        return [b"", *frames]
    return frames + [b""] * 40


def _deep(frames: Frames, rng: random.Random) -> Frames:
    opening = rng.choice([b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01"])
    frames[0] = opening * rng.choice([10, 600, 3000]) + b"\xc0"
    return frames


def _announced(frames: Frames, rng: random.Random) -> Frames:
    """A few bytes that announce gigabytes."""
    heads = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
             b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01"]  # fmt: skip
    frames[0] = rng.choice(heads) + rng.randbytes(rng.randrange(20))
    return frames


def _noise(frames: Frames, rng: random.Random) -> Frames:
    frames[0] = rng.randbytes(rng.choice([0, 1, 10, 48, 100, 2000]))
    return frames


def _many_in_little(frames: Frames, rng: random.Random) -> Frames:
    """A map that names a key twice, or a list of thousands of empty lists."""
    n = rng.choice([20, 5000])
    frames[0] = rng.choice([b"\x82\xa1v\x04\xa1v\x04", b"\xdd" + n.to_bytes(4) + b"\x90" * n])
    return frames


MUTATIONS: list[Callable[[Frames, random.Random], Frames]] = [
    _of_head(_set_field), _of_head(_set_field), _of_head(_set_field), _of_head(_drop_field),
    _of_head(_add_field), _of_head(_version), _of_head(_epoch), _of_head(_kind),
    _of_head(_arrays), _flip, _truncate, _lengthen, _other_shape, _deep, _announced, _noise,
    _many_in_little,
]  # fmt: skip
