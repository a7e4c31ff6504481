"""Lines: TCP connections between two ranks for short messages, written and read by the thread that
computes, without Python and without another thread. See cluster/mesh/line.py."""

from __future__ import annotations

from kernels.emit.intrinsics import load_i64, store_i64
from kernels.emit.jit import jitted, kernel
from kernels.emit.system import errno, recv, send
from kernels.wire.frames import (
    BROKEN,
    CLOSED,
    DONT_WAIT,
    FD,
    FRAME_WORDS,
    LENGTH_BYTES,
    MAX_TAG_BYTES,
    NO_SIGNAL,
    TAG_BYTES,
    body_bytes,
    break_off,
    is_later,
    put,
    seal,
    unseal,
    word,
)

# behind those of a connection
(
    OUT, IN,  # the addresses of the buffers
    N_LEFT, LEFT_AT,  # bytes of the last frame that the system has not taken yet, and where
    N_READ,  # bytes in the buffer of what came
    N_READY,  # bytes of the first message there, which is whole and open; 0: there is none
    LINE_WORDS,
) = range(FRAME_WORDS, FRAME_WORDS + 7)  # fmt: skip

MAX_MESSAGE_BYTES = (256 << 10) + 4096
FRAME_BYTES = LENGTH_BYTES + MAX_MESSAGE_BYTES + MAX_TAG_BYTES
IN_BYTES = 2 * FRAME_BYTES  # a peer may be one message ahead


@jitted
def flush_line(line):
    """Sends what is left of the last frame; returns the bytes that still are, -1 for a broken
    line."""
    n_left = word(line, N_LEFT)
    while n_left > 0:
        n = send(word(line, FD), word(line, LEFT_AT), n_left, DONT_WAIT | NO_SIGNAL)
        if n < 0:
            return n_left if is_later() else break_off(line, errno())
        n_left -= n
        put(line, N_LEFT, n_left)
        put(line, LEFT_AT, word(line, LEFT_AT) + n)
    return 0


@jitted
def send_by_line(line, message, n_bytes):
    """Sends the message at an address. Returns 1, or 0 where nothing was sent: the message is too
    long, or the last one still on its way; -1 for a broken line."""
    if word(line, BROKEN) != 0:
        return -1
    if n_bytes > MAX_MESSAGE_BYTES:
        return 0
    if word(line, N_LEFT) > 0 and flush_line(line) != 0:
        return -1 if word(line, BROKEN) != 0 else 0
    frame = word(line, OUT)
    n_frame = seal(line, message, n_bytes, frame)
    if n_frame < 0:
        return -1
    put(line, N_LEFT, n_frame)
    put(line, LEFT_AT, frame)
    return -1 if flush_line(line) < 0 else 1


@jitted
def _read(line, n_wanted):
    """Reads until `n_wanted` bytes are there; returns whether they are."""
    while word(line, N_READ) < n_wanted:
        n_read = word(line, N_READ)
        n = recv(word(line, FD), word(line, IN) + n_read, IN_BYTES - n_read, DONT_WAIT)
        if n <= 0:
            if n == 0 or not is_later():
                break_off(line, CLOSED if n == 0 else errno())
            return False
        put(line, N_READ, n_read + n)
    return True


@jitted
def look_at_line(line):
    """Reads what has come; returns the bytes of the first message if it is whole, which is then at
    `message_of(line)`, 0 if it is not, and -1 for a broken line."""
    if word(line, N_READY) > 0:
        return word(line, N_READY)
    if word(line, BROKEN) != 0 or (word(line, N_LEFT) > 0 and flush_line(line) < 0):
        return -1
    if not _read(line, LENGTH_BYTES):
        return -1 if word(line, BROKEN) != 0 else 0
    frame = word(line, IN)
    n_body = body_bytes(line, frame, MAX_MESSAGE_BYTES)
    if n_body < 0:
        return -1
    if not _read(line, LENGTH_BYTES + n_body):
        return -1 if word(line, BROKEN) != 0 else 0
    n_bytes = unseal(line, frame)
    put(line, N_READY, max(0, n_bytes))
    return n_bytes


@jitted
def message_of(line):
    """The address of the message that is ready."""
    return word(line, IN) + LENGTH_BYTES


@jitted
def free_line(line):
    """Frees the buffer of the message that is ready, for the next one."""
    used = LENGTH_BYTES + word(line, N_READY) + word(line, TAG_BYTES)
    first, n_rest = word(line, IN), word(line, N_READ) - used
    for i in range(0, n_rest, 8):  # from front to back; the buffer is longer than what it holds
        store_i64(first + i, load_i64(first + used + i))
    put(line, N_READ, n_rest)
    put(line, N_READY, 0)


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
