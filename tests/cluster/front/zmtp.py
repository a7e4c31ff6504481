"""ZMTP 3 by hand, for peers that do not keep to it."""

from __future__ import annotations

import socket

GREETING = (
    b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
)  # of a client
_READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
READY = bytes([4, len(_READY)]) + _READY


def frame(body: bytes, *, more: bool = False, flags: int = 0) -> bytes:
    """One frame, long or short."""
    flags |= more
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + len(body).to_bytes(8) + body


def shake_hands(address: tuple[str, int], timeout_s: float = 10.0) -> socket.socket:
    """A connection that has greeted as a DEALER does, and has heard the other side's command: a
    message before that is an error."""
    made = socket.create_connection(address, timeout_s)
    made.sendall(GREETING + READY)
    heard = _read(made, len(GREETING) + 2)
    _read(made, heard[-1])
    return made


def _read(end: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        more = end.recv(n_bytes - len(data))
        assert more, "the other side has closed"
        data += more
    return data


def is_closed(end: socket.socket, timeout_s: float = 20.0) -> bool:
    """Whether the other side closes within a while; what it says is read."""
    end.settimeout(timeout_s)
    try:
        while end.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
