"""What the server and an engine process say to each other: the dataclasses of dllama/requests.py,
one frame each."""

from __future__ import annotations

from typing import get_args

from cluster.wire.codec import Codec, Frame
from dllama.requests import FromEngine, ToEngine

MAX_MESSAGE_BYTES = 64 << 20
CODEC: Codec[ToEngine | FromEngine] = Codec(
    (*get_args(ToEngine), *get_args(FromEngine)), MAX_MESSAGE_BYTES
)


def encode_message(message: ToEngine | FromEngine) -> bytes:
    """The bytes of a message. Raises ProtocolError where it is too long to be read again, or
    holds what msgpack cannot carry."""
    (head,) = CODEC.pack(message)
    return bytes(head)


def decode_message(data: Frame) -> ToEngine | FromEngine:
    """The message that the bytes stand for. Raises ProtocolError for anything else."""
    _, message = CODEC.unpack([data])
    return message
