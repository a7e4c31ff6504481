"""Frames of a TCP connection between two ranks: the length of a body (int64, little-endian) and the
body, a message, which is sealed where links are encrypted. Each direction of each connection has a
key of its own and counts its frames: the number is the nonce, so that a frame which is lost,
repeated or changed opens to nothing.

A connection is the address of its words, int64; the names below are places in them.
"""

from __future__ import annotations

from kernels.emit.intrinsics import call_c_int, copy_bytes, load_i64, store_i64
from kernels.emit.jit import jitted
from kernels.emit.system import errno

(
    FD,  # of the socket
    SEAL, OPEN,  # the addresses of libsodium's functions; 0 where the connection is plain
    TAG_BYTES,  # that sealing adds
    SEAL_KEY, OPEN_KEY, SEAL_NONCE, OPEN_NONCE,  # addresses; of a nonce the first 8 bytes count
    BROKEN,  # why the connection is of no use any more; 0 while it is
    FRAME_WORDS,
) = range(10)  # fmt: skip

CLOSED, FORGED, TOO_LONG, NOT_SEALED = (
    -1,
    -2,
    -3,
    -4,
)  # in BROKEN, beside the system's errors
MAX_TAG_BYTES = 32
LENGTH_BYTES = 8
NO_SIGNAL, DONT_WAIT, WAIT_ALL = 0x4000, 0x40, 0x100  # flags of Linux

_EAGAIN, _EINTR = 11, 4


@jitted
def word(connection, place):
    return load_i64(connection + 8 * place)


@jitted
def put(connection, place, value):
    store_i64(connection + 8 * place, value)


@jitted
def break_off(connection, why):
    put(connection, BROKEN, why)
    return -1


@jitted
def is_later():
    """Returns whether the last call of the system failed only for now."""
    return errno() in (_EAGAIN, _EINTR)


@jitted
def seal(connection, message, n_bytes, frame):
    """Writes the frame of the message at an address to another one; returns its bytes, -1 where it
    cannot be sealed. The message may be where the frame's body begins."""
    n_body, to = n_bytes + word(connection, TAG_BYTES), frame + LENGTH_BYTES
    store_i64(frame, n_body)
    if word(connection, SEAL) == 0:
        if message != to:
            copy_bytes(to, message, n_bytes)
        return LENGTH_BYTES + n_body
    nonce, key = word(connection, SEAL_NONCE), word(connection, SEAL_KEY)
    if call_c_int(word(connection, SEAL), (to, 0, message, n_bytes, 0, 0, 0, nonce, key)) != 0:
        return break_off(connection, NOT_SEALED)
    store_i64(nonce, load_i64(nonce) + 1)
    return LENGTH_BYTES + n_body


@jitted
def body_bytes(connection, frame, max_bytes):
    """The bytes of the body of a frame whose length has come; -1 breaks a connection whose messages
    may have `max_bytes`."""
    n_body, n_tag = load_i64(frame), word(connection, TAG_BYTES)
    if n_body <= n_tag or n_body > max_bytes + n_tag:
        return break_off(connection, TOO_LONG)
    return n_body


@jitted
def unseal(connection, frame):
    """Opens the body of a frame where it is; returns the bytes of its message, -1 for a forged
    one, which breaks the connection."""
    n_body = load_i64(frame)
    if word(connection, OPEN) != 0:
        body = frame + LENGTH_BYTES
        nonce, key = word(connection, OPEN_NONCE), word(connection, OPEN_KEY)
        if call_c_int(word(connection, OPEN), (body, 0, 0, body, n_body, 0, 0, nonce, key)) != 0:
            return break_off(connection, FORGED)
        store_i64(nonce, load_i64(nonce) + 1)
    return n_body - word(connection, TAG_BYTES)
