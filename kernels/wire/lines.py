"""Lines: plain TCP connections between two ranks for short messages, written and read without
Python and without a thread of their own. See cluster/mesh/line.py for how they are made.

A frame is the length of its body (int64, little-endian) and the body: a message, sealed where links
are encrypted. Each direction has a key of its own and counts its frames: the number is the nonce,
so that a frame which is lost, repeated or changed opens to nothing.

A line is the address of its words, int64; the names below are places in them.
"""

from __future__ import annotations

from kernels.emit.intrinsics import call_c_int, copy_bytes, load_i64, store_i64
from kernels.emit.jit import jitted, kernel
from kernels.emit.system import errno, recv, send

(
    FD,  # of the socket, which never blocks
    SEAL, OPEN,  # the addresses of libsodium's functions; 0 where the line is plain
    TAG_BYTES,  # that sealing adds
    SEAL_KEY, OPEN_KEY, SEAL_NONCE, OPEN_NONCE,  # addresses; of a nonce the first 8 bytes count
    OUT, IN,  # the addresses of the buffers
    N_LEFT, LEFT_AT,  # bytes of the last frame that the system has not taken yet, and where
    N_READ,  # bytes in the buffer of what came
    N_READY,  # bytes of the first message there, which is whole and open; 0: there is none
    BROKEN,  # why the line is of no use any more; 0 while it is
    LINE_WORDS,
) = range(16)  # fmt: skip

CLOSED, FORGED, TOO_LONG = -1, -2, -3  # in BROKEN, where it is no error of the system

MAX_MESSAGE_BYTES = (128 << 10) + 4096  # longer ones are left to ZeroMQ's thread
MAX_TAG_BYTES = 32
LENGTH_BYTES = 8
FRAME_BYTES = LENGTH_BYTES + MAX_MESSAGE_BYTES + MAX_TAG_BYTES
IN_BYTES = 2 * FRAME_BYTES  # a peer may be one message ahead

_EAGAIN, _EINTR = 11, 4
_DONTWAIT, _NOSIGNAL = 0x40, 0x4000  # flags of Linux


@jitted
def _word(line, place):
    return load_i64(line + 8 * place)


@jitted
def _put(line, place, value):
    store_i64(line + 8 * place, value)


@jitted
def _break(line, why):
    _put(line, BROKEN, why)
    return -1


@jitted
def _count(nonce):
    """Makes a nonce that of the next frame."""
    store_i64(nonce, load_i64(nonce) + 1)


@jitted
def _is_later():
    """Whether the last call of the system failed only for now."""
    number = errno()
    return number in (_EAGAIN, _EINTR)


@jitted
def flush_line(line):
    """Sends what is left of the last frame; returns the bytes that still are, -1 for a broken
    line."""
    n_left = _word(line, N_LEFT)
    while n_left > 0:
        n = send(_word(line, FD), _word(line, LEFT_AT), n_left, _DONTWAIT | _NOSIGNAL)
        if n < 0:
            return n_left if _is_later() else _break(line, errno())
        n_left -= n
        _put(line, N_LEFT, n_left)
        _put(line, LEFT_AT, _word(line, LEFT_AT) + n)
    return 0


@jitted
def send_by_line(line, message, n_bytes):
    """Sends the message at an address. Returns 1, or 0 where nothing was sent: the message is too
    long, or the last one still on its way; -1 for a broken line."""
    if _word(line, BROKEN) != 0:
        return -1
    if n_bytes > MAX_MESSAGE_BYTES:
        return 0
    if _word(line, N_LEFT) > 0 and flush_line(line) != 0:
        return -1 if _word(line, BROKEN) != 0 else 0
    frame, n_body = _word(line, OUT), n_bytes + _word(line, TAG_BYTES)
    store_i64(frame, n_body)
    if _word(line, SEAL) == 0:
        copy_bytes(frame + LENGTH_BYTES, message, n_bytes)
    else:
        nonce = _word(line, SEAL_NONCE)
        call_c_int(_word(line, SEAL), (frame + LENGTH_BYTES, 0, message, n_bytes, 0, 0, 0, nonce,
                                       _word(line, SEAL_KEY)))  # fmt: skip
        _count(nonce)
    _put(line, LEFT_AT, frame)
    _put(line, N_LEFT, LENGTH_BYTES + n_body)
    return -1 if flush_line(line) < 0 else 1


@jitted
def _read(line, n_wanted):
    """Reads until `n_wanted` bytes are there; returns whether they are."""
    while _word(line, N_READ) < n_wanted:
        n_read = _word(line, N_READ)
        n = recv(_word(line, FD), _word(line, IN) + n_read, IN_BYTES - n_read, _DONTWAIT)
        if n <= 0:
            if n == 0 or not _is_later():
                _break(line, CLOSED if n == 0 else errno())
            return False
        _put(line, N_READ, n_read + n)
    return True


@jitted
def look_at_line(line):
    """Reads what has come; returns the bytes of the first message if it is whole, which is then at
    `message_of(line)`, 0 if it is not, and -1 for a broken line."""
    if _word(line, N_READY) > 0:
        return _word(line, N_READY)
    if _word(line, BROKEN) != 0 or (_word(line, N_LEFT) > 0 and flush_line(line) < 0):
        return -1
    if not _read(line, LENGTH_BYTES):
        return -1 if _word(line, BROKEN) != 0 else 0
    at, n_tag = _word(line, IN), _word(line, TAG_BYTES)
    n_body = load_i64(at)
    if n_body <= n_tag or n_body > MAX_MESSAGE_BYTES + n_tag:
        return _break(line, TOO_LONG)
    if not _read(line, LENGTH_BYTES + n_body):
        return -1 if _word(line, BROKEN) != 0 else 0
    if _word(line, OPEN) != 0:
        body, nonce = at + LENGTH_BYTES, _word(line, OPEN_NONCE)
        if call_c_int(_word(line, OPEN), (body, 0, 0, body, n_body, 0, 0, nonce,
                                          _word(line, OPEN_KEY))) != 0:  # fmt: skip
            return _break(line, FORGED)
        _count(nonce)
    _put(line, N_READY, n_body - n_tag)
    return n_body - n_tag


@jitted
def message_of(line):
    """The address of the message that is ready."""
    return _word(line, IN) + LENGTH_BYTES


@jitted
def free_line(line):
    """Lets go of the message that is ready."""
    used = LENGTH_BYTES + _word(line, N_READY) + _word(line, TAG_BYTES)
    at, n_rest = _word(line, IN), _word(line, N_READ) - used
    for i in range(0, n_rest, 8):  # from front to back; the buffer is longer than what it holds
        store_i64(at + i, load_i64(at + used + i))
    _put(line, N_READ, n_rest)
    _put(line, N_READY, 0)


@kernel
def write_line(line, message, n_bytes):
    """`send_by_line`, for Python."""
    return send_by_line(line, message, n_bytes)


@kernel
def read_lines(lines):
    """Looks at the lines at some addresses (n,) int64; returns the number of the first that has a
    message ready or is broken, -1 where there is none."""
    for i in range(len(lines)):
        if look_at_line(lines[i]) != 0:
            return i
    return -1


@kernel
def free(line):
    """`free_line`, for Python."""
    free_line(line)
