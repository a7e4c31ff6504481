"""A message as frames: a msgpack head, then raw little-endian arrays. Knows no sockets.

The head is a map: `v` the protocol version, `e` the epoch of the session (0 outside one), `k` the
kind, `a` a list of [dtype, shape] for the array frames that follow, and the fields of the kind.
Whatever does not fit exactly is a ProtocolError; nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgpack
import numpy as np

from dllama import __version__
from dllama.errors import ProtocolError

PROTOCOL_VERSION = 1
MAX_HEAD_BYTES = 4 << 20  # the longest head is the list of a model's tensors: 50 bytes each
MAX_ARRAYS = 16
MAX_ARRAY_BYTES = 1 << 30
MAX_DIMS = 4

DTYPES: dict[str, np.dtype] = {
    "u1": np.dtype("<u1"),
    "i4": np.dtype("<i4"),
    "f4": np.dtype("<f4"),
}
"""The types an array may cross a wire in, by the names they go by in a head."""

RESERVED = frozenset("veka")
Frame = bytes | bytearray | memoryview


class Head(NamedTuple):
    kind: str
    epoch: int
    fields: dict[str, object]


def encode(
    kind: str, epoch: int, fields: Mapping[str, object], arrays: Sequence[np.ndarray] = ()
) -> list[Frame]:
    """The frames of a message; array frames are views where an array is contiguous."""
    wired = [_little_endian(a) for a in arrays]
    described = [[_dtype_name(a.dtype), list(a.shape)] for a in wired]
    head = {"v": PROTOCOL_VERSION, "e": epoch, "k": kind, "a": described, **fields}
    packed: bytes = msgpack.packb(head)
    return [packed, *(a.reshape(-1).view(np.uint8).data for a in wired)]


def decode(frames: Sequence[Frame]) -> tuple[Head, list[np.ndarray]]:
    """Head and arrays of a message; arrays are read-only views of the frames.

    Raises ProtocolError for another version, a head that is no head, or arrays that are not of
    the size it announces.
    """
    if not frames or len(frames) > MAX_ARRAYS + 1:
        raise ProtocolError(f"a message has {len(frames)} frames; expected 1 to {MAX_ARRAYS + 1}")
    head = _unpack_head(frames[0])
    _check_version(head)
    epoch, kind, described = head.get("e"), head.get("k"), head.get("a")
    if type(epoch) is not int or not 0 <= epoch < 1 << 63:
        raise ProtocolError("a message has no valid epoch in its head")
    if not isinstance(kind, str) or not isinstance(described, list):
        raise ProtocolError("a message has no kind or no list of arrays in its head")
    if len(described) != len(frames) - 1:
        raise ProtocolError(
            f"a {kind} message announces {len(described)} arrays and brings {len(frames) - 1}"
        )
    arrays = [_decode_array(kind, d, f) for d, f in zip(described, frames[1:], strict=True)]
    fields = {k: v for k, v in head.items() if k not in RESERVED}
    return Head(kind, epoch, fields), arrays


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _dtype_name(dtype: np.dtype) -> str:
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise ValueError(f"arrays of {dtype} do not cross a wire; expected one of {', '.join(DTYPES)}")


def _unpack_head(frame: Frame) -> dict[str, object]:
    if len(frame) > MAX_HEAD_BYTES:
        raise ProtocolError(f"a message head of {len(frame)} bytes; at most {MAX_HEAD_BYTES}")
    try:
        head = msgpack.unpackb(frame, max_ext_len=0, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"a message head is not msgpack: {error}") from None
    if not isinstance(head, dict) or not all(isinstance(k, str) for k in head):
        raise ProtocolError("a message head is not a map of names")
    return head


def _check_version(head: Mapping[str, object]) -> None:
    version = head.get("v")
    if version == PROTOCOL_VERSION and type(version) is int:
        return
    release = head.get("release")
    theirs = f"{version!r:.20} (dllama {release!s:.20})" if release else f"{version!r:.20}"
    raise ProtocolError(
        f"the peer speaks cluster protocol {theirs}, this node speaks {PROTOCOL_VERSION} "
        f"(dllama {__version__}); install the same dllama on every node"
    )


def _decode_array(kind: str, described: object, frame: Frame) -> np.ndarray:
    if not isinstance(described, list) or len(described) != 2:
        raise ProtocolError(f"a {kind} message describes an array by {described!r:.60}")
    name, shape = described
    if not isinstance(name, str) or name not in DTYPES:
        raise ProtocolError(f"a {kind} message has an array of unknown type {name!r:.20}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise ProtocolError(f"a {kind} message has an array of shape {shape!r:.60}")
    if not all(type(n) is int and 0 <= n <= MAX_ARRAY_BYTES for n in shape):
        raise ProtocolError(f"a {kind} message has an array of shape {shape!r:.60}")
    n_bytes = math.prod(shape) * DTYPES[name].itemsize
    if n_bytes > MAX_ARRAY_BYTES or n_bytes != len(frame):
        raise ProtocolError(
            f"a {kind} message announces an array of {n_bytes} bytes and brings {len(frame)}"
        )
    array: np.ndarray = np.frombuffer(frame, dtype=DTYPES[name]).reshape(shape)
    return array
