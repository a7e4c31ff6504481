"""Who sent a message to a daemon."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    """The far end of one link: where ZeroMQ answers it, and the connection it came by."""

    identity: bytes
    connection: int  # of the front; 0 for one that has gone since
    host: str  # the address it comes from
    key: str = ""  # the public key that it has shown to hold; "" on a plain link

    @property
    def is_encrypted(self) -> bool:
        return self.key != ""
