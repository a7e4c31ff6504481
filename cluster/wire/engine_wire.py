"""The messages between the server and an engine process as bytes: one msgpack map each, with the
kind under "type". Knows no sockets.

The tables of cluster/wire/engine_fields.py are the whole protocol; both ends are always of the same
release.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgpack

from cluster.wire.engine_fields import FIELDS, KINDS, MAX_LIST, MAX_TOKENS, record, unexpected
from dllama.errors import ProtocolError
from dllama.requests import FromEngine, ToEngine

MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def encode_message(message: ToEngine | FromEngine) -> bytes:
    """The bytes of a message. Raises ProtocolError where it is too long to be read again, or
    holds what msgpack cannot carry."""
    tag = _TAGS.get(type(message))
    if tag is None:
        raise ProtocolError(
            f"a {type(message).__name__} cannot be sent to or from an engine; "
            f"expected one of {', '.join(cls.__name__ for cls in _TAGS)}"
        )
    try:
        packed: bytes = msgpack.packb({"type": tag, **_to_map(message)}, default=_to_map)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a message {tag!r} cannot be packed: {error}") from None
    _check_size(packed)
    return packed


def decode_message(data: bytes) -> ToEngine | FromEngine:
    """The message that the bytes stand for. Raises ProtocolError for anything else."""
    _check_size(data)
    try:
        raw = msgpack.unpackb(
            data,
            strict_map_key=False,  # logit_bias has numbers for keys
            max_ext_len=0,
            max_array_len=MAX_TOKENS,
            max_map_len=MAX_LIST,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"an engine message is not msgpack: {error}") from None
    tag = raw.pop("type", None) if type(raw) is dict else None
    cls = KINDS.get(tag) if type(tag) is str else None
    if cls is None:
        raise unexpected("type", tag, f"one of {', '.join(KINDS)}")
    message: ToEngine | FromEngine = record(cls)(raw, str(tag))
    return message


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"an engine message has {len(data)} bytes, and at most {MAX_MESSAGE_BYTES} are allowed"
        )


_TAGS: dict[type, str] = {cls: tag for tag, cls in KINDS.items()}
_NAMES = {cls: tuple(checks) for cls, checks in FIELDS.items()}
_GETTERS: dict[type, Callable[[Any], Any]] = {
    cls: attrgetter(*names) for cls, names in _NAMES.items()
}


def _to_map(record: Any) -> dict[str, Any]:
    """A dataclass of the tables as a map of its fields, one level deep."""
    names = _NAMES.get(type(record))
    if names is None:
        raise TypeError(f"a {type(record).__name__} is none of the types that are sent")
    values = _GETTERS[type(record)](record)
    return dict(zip(names, values if len(names) > 1 else (values,), strict=True))
