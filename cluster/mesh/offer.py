"""The offer of connections that a rank makes to another one, as it travels by ZeroMQ."""

from __future__ import annotations

import secrets
import struct
from typing import NamedTuple

from dllama.errors import ProtocolError

TICKET_BYTES, KEY_BYTES = 16, 32
KINDS = 2  # connections of two ranks: a line, a stream
_OFFER = struct.Struct("<HB" + f"{TICKET_BYTES}s{KEY_BYTES}s" * KINDS)
OFFER_BYTES = _OFFER.size


class Offer(NamedTuple):
    """What a rank offers another: the port that it listens on (0 of the higher rank), the ciphers
    that it can use as bits (0: nothing is sealed), and for each connection the other's ticket and
    the key that it seals with."""

    port: int
    ciphers: int
    tickets: tuple[bytes, ...]
    keys: tuple[bytes, ...]

    @classmethod
    def new(cls, port: int, ciphers: int) -> Offer:
        made = [secrets.token_bytes(TICKET_BYTES) for _ in range(KINDS)]
        keys = [secrets.token_bytes(KEY_BYTES) if ciphers else bytes(KEY_BYTES) for _ in made]
        return cls(port, ciphers, tuple(made), tuple(keys))

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> Offer | None:
        """Returns None where nothing is offered. Raises ProtocolError."""
        if not len(payload):
            return None
        if len(payload) != OFFER_BYTES:
            raise ProtocolError(
                f"an offer of connections has {len(payload)} bytes, expected {OFFER_BYTES}; "
                "install the same dllama on every node"
            )
        port, ciphers, *pairs = _OFFER.unpack(payload)
        return cls(port, ciphers, tuple(pairs[::2]), tuple(pairs[1::2]))

    def pack(self) -> bytes:
        pairs = [each for pair in zip(self.tickets, self.keys, strict=True) for each in pair]
        return _OFFER.pack(self.port, self.ciphers, *pairs)
