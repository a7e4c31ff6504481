"""A message as frames: a msgpack head, then raw little-endian arrays. Knows no sockets.

The head is a map: `v` the protocol version, `e` the epoch of the session (0 outside one), `k` the
kind, `a` a list of [dtype, shape] for the array frames that follow, and the fields of the kind.
Whatever does not fit exactly is a ProtocolError; nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgpack
import numpy as np

from cluster.wire.records import Record, plain, record_of
from dllama import __version__
from dllama.errors import ProtocolError
from dllama.limits import MAX_ENTRIES

PROTOCOL_VERSION = 9
MAX_ARRAYS = 16
MAX_ARRAY_BYTES = 1 << 30
MAX_DIMS = 4
MAX_BEGIN_BYTES = 32  # of a head: where its version and epoch stand
MAX_LIST = 4 * MAX_ENTRIES  # the longest list of any message is a prompt

DTYPES: dict[str, np.dtype] = {"u1": np.dtype("<u1"), "i4": np.dtype("<i4"), "f4": np.dtype("<f4")}
"""The types an array may cross a wire in, by the names they go by in a head."""

_NAMES: dict[np.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
RESERVED = frozenset("veka")
Frame = bytes | bytearray | memoryview
M = TypeVar("M")


class Codec(Generic[M]):
    """The messages that one kind of link carries: dataclasses, whose names are their kinds.

    `max_head_bytes` is the longest head, without arrays, that is written or read.
    """

    def __init__(self, kinds: Iterable[Any], max_head_bytes: int) -> None:
        self.kinds: dict[str, Record] = {kind.__name__: record_of(kind) for kind in kinds}
        self._max_head_bytes = max_head_bytes
        for kind, record in self.kinds.items():
            if RESERVED & set(record.names) or record.n_arrays > MAX_ARRAYS:
                raise TypeError(f"{kind} has a field called as those of every head, or many arrays")

    def pack(self, message: M, epoch: int = 0) -> list[Frame]:
        """The frames of a message. Raises ProtocolError for one that could not be read again."""
        kind = type(message).__name__
        record = self.kinds.get(kind)
        if record is None or type(message) is not record.cls:
            raise ProtocolError(
                f"a message of the type {kind} cannot be sent here; expected one of "
                f"{', '.join(self.kinds)}"
            )
        arrays: list[np.ndarray] = []
        frames = encode(kind, epoch, record.to_map(message, arrays), arrays, default=plain)
        self._check_head(frames[0])
        return frames

    def unpack(self, frames: Sequence[Frame]) -> tuple[int, M]:
        """Epoch and message. Raises ProtocolError for whatever is no message of this version."""
        if frames:
            self._check_head(frames[0])
        head, arrays = decode(frames)
        record = self.kinds.get(head.kind)
        if record is None:
            raise ProtocolError(
                f"a message of unknown kind {head.kind!r:.40}; dllama {__version__} (protocol "
                f"{PROTOCOL_VERSION}) expects one of {', '.join(self.kinds)}"
            )
        if record.n_arrays != len(arrays):
            raise ProtocolError(
                f"a {head.kind} message has {record.n_arrays} arrays, not {len(arrays)}"
            )
        message: M = record.build(head.fields, iter(arrays))
        return head.epoch, message

    def _check_head(self, head: Frame) -> None:
        if len(head) > self._max_head_bytes:
            raise ProtocolError(
                f"a message has a head of {len(head)} bytes, and at most {self._max_head_bytes} "
                "are allowed"
            )


# ---- bytes
class Head(NamedTuple):
    kind: str
    epoch: int
    fields: dict[str, Any]


def encode(
    kind: str,
    epoch: int,
    fields: Mapping[str, object],
    arrays: Sequence[np.ndarray] = (),
    default: Callable[[Any], Any] | None = None,
) -> list[Frame]:
    """The frames of a message; array frames are views where an array is contiguous.

    `default` makes a plain value of what msgpack does not know. Raises ProtocolError where it
    cannot, ValueError for arrays of a type that does not travel.
    """
    wired = [_little_endian(a) for a in arrays]
    described = [(_NAMES[a.dtype], a.shape) for a in wired]
    head = {"v": PROTOCOL_VERSION, "e": epoch, "k": kind, "a": described, **fields}
    try:
        packed: bytes = msgpack.packb(head, default=default)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a {kind} message cannot be packed: {error}") from None
    return [packed, *(a.data.cast("B") if a.size else b"" for a in wired)]


def decode(frames: Sequence[Frame]) -> tuple[Head, list[np.ndarray]]:
    """Head and arrays of a message; arrays are read-only views of the frames.

    Raises ProtocolError for another version, a head that is no head, or arrays that are not of
    the size it announces.
    """
    if not frames or len(frames) > MAX_ARRAYS + 1:
        raise ProtocolError(f"a message has {len(frames)} frames; expected 1 to {MAX_ARRAYS + 1}")
    head = _unpack_head(frames[0])
    _check_version(head)
    epoch, kind, described = head.pop("e", None), head.pop("k", None), head.pop("a", None)
    if type(epoch) is not int or not 0 <= epoch < 1 << 63:
        raise ProtocolError("a message has no valid epoch in its head")
    if type(kind) is not str or type(described) is not list:
        raise ProtocolError("a message has no kind or no list of arrays in its head")
    if len(described) != len(frames) - 1:
        raise ProtocolError(
            f"a {kind!r:.40} message announces {len(described)} arrays and brings {len(frames) - 1}"
        )
    arrays = [_decode_array(kind, d, f) for d, f in zip(described, frames[1:], strict=True)]
    return Head(kind, epoch, head), arrays


def epoch_of(frames: Sequence[Frame]) -> int | None:
    """Returns the epoch in a message's head without reading the rest of it; None where a head does
    not begin as `encode` writes it. What a stranger sends costs no more than this."""
    if not 0 < len(frames) <= MAX_ARRAYS + 1:
        return None
    begin = msgpack.Unpacker()
    begin.feed(bytes(frames[0][:MAX_BEGIN_BYTES]))
    try:
        begin.read_map_header()
        first, _, second, epoch = [begin.unpack() for _ in range(4)]
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return None
    return epoch if (first, second) == ("v", "e") and type(epoch) is int else None


def _little_endian(array: np.ndarray) -> np.ndarray:
    """An array as it crosses a wire; itself where it is contiguous."""
    if array.dtype in _NAMES:
        return np.asarray(array, order="C")
    name = array.dtype.str[1:]
    if name not in DTYPES:
        raise ValueError(
            f"arrays of {array.dtype} do not cross a wire; expected one of {', '.join(DTYPES)}"
        )
    return np.asarray(array, DTYPES[name], order="C")


def _unpack_head(frame: Frame) -> dict[str, Any]:
    try:
        head = msgpack.unpackb(
            frame,
            strict_map_key=False,  # a map may have tokens for keys
            max_ext_len=0,
            max_array_len=MAX_LIST,
            max_map_len=MAX_ENTRIES,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"a message head is not msgpack: {error}") from None
    if type(head) is not dict:
        raise ProtocolError("a message head is not a map of names")
    return head


def _check_version(head: dict[str, Any]) -> None:
    version = head.pop("v", None)
    if version == PROTOCOL_VERSION and type(version) is int:
        return
    release = head.get("release")
    theirs = f"{version!r:.20} (dllama {release!s:.20})" if release else f"{version!r:.20}"
    raise ProtocolError(
        f"the peer speaks protocol {theirs}, this node speaks {PROTOCOL_VERSION} "
        f"(dllama {__version__}); install the same dllama on every node"
    )


def _decode_array(kind: str, described: object, frame: Frame) -> np.ndarray:
    if not isinstance(described, list) or len(described) != 2:
        raise ProtocolError(f"a {kind!r:.40} message describes an array by {described!r:.60}")
    name, shape = described
    if not isinstance(name, str) or name not in DTYPES:
        raise ProtocolError(f"a {kind!r:.40} message has an array of unknown type {name!r:.20}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise ProtocolError(f"a {kind!r:.40} message has an array of shape {shape!r:.60}")
    if not all(type(n) is int and 0 <= n <= MAX_ARRAY_BYTES for n in shape):
        raise ProtocolError(f"a {kind!r:.40} message has an array of shape {shape!r:.60}")
    n_bytes = math.prod(shape) * DTYPES[name].itemsize
    if n_bytes > MAX_ARRAY_BYTES or n_bytes != len(frame):
        raise ProtocolError(
            f"a {kind!r:.40} message announces an array of {n_bytes} bytes and brings {len(frame)}"
        )
    array: np.ndarray = np.frombuffer(frame, dtype=DTYPES[name]).reshape(shape)
    return array
