"""Streams: TCP connections between two ranks for long messages, each with a thread that sends and
one that receives beside the computing. Both run compiled code that never takes Python's lock, and
sleep in the system while there is nothing to do. See cluster/mesh/stream.py.

Frames wait in rings of slots, one for each direction. The counters only rise: a slot's number is
its frame's modulo the number of slots.
"""

from __future__ import annotations

from kernels.emit.intrinsics import atomic_load, atomic_store, copy_bytes
from kernels.emit.jit import jitted, kernel
from kernels.emit.system import errno, recv, send, syscall, write
from kernels.team import FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE, SYS_FUTEX
from kernels.wire.frames import (
    BROKEN,
    CLOSED,
    FD,
    FRAME_WORDS,
    LENGTH_BYTES,
    MAX_TAG_BYTES,
    NO_SIGNAL,
    WAIT_ALL,
    body_bytes,
    break_off,
    is_later,
    seal,
    unseal,
    word,
)

# behind those of a connection; the counters on cache lines of their own
(
    OUT, IN,  # the addresses of the rings
    EVENT_FD,  # written to when something came while the reader sleeps
    ASLEEP_AT,  # the address of one number that is not 0 while the reader sleeps
    ONE,  # the number 1, to write to it
    STOP,
) = range(FRAME_WORDS, FRAME_WORDS + 6)  # fmt: skip
N_QUEUED, N_SENT, N_CAME, N_TAKEN = 16, 24, 32, 40
STREAM_WORDS = 48

N_SLOTS = 8  # a power of two; a long step has six messages under way
MAX_MESSAGE_BYTES = (1 << 20) + 4096  # the mesh's longest block, and its header
SLOT_BYTES = (LENGTH_BYTES + MAX_MESSAGE_BYTES + MAX_TAG_BYTES + 63) // 64 * 64


@jitted
def _slot(stream, ring, number):
    """The address of a frame's slot in a ring."""
    return word(stream, ring) + (number & (N_SLOTS - 1)) * SLOT_BYTES


@jitted
def _wait(where, seen):
    """Sleeps while the int64 at an address is `seen`, for as long as nobody wakes."""
    syscall(SYS_FUTEX, where, FUTEX_WAIT_PRIVATE, seen & 0xFFFFFFFF, 0, 0)


@jitted
def _wake(where):
    syscall(SYS_FUTEX, where, FUTEX_WAKE_PRIVATE, 1, 0, 0)


@kernel
def queue(stream, header, n_header, payload, n_payload):
    """Copies a message, whose header and payload are at two addresses, to the ring of those to be
    sent; returns 1, or 0 where it was not: it is too long, the ring is full, or the stream is
    broken."""
    n_bytes = n_header + n_payload
    n_queued, counter = atomic_load(stream + 8 * N_QUEUED), stream + 8 * N_QUEUED
    is_full = n_queued - atomic_load(stream + 8 * N_SENT) >= N_SLOTS
    if is_full or n_bytes > MAX_MESSAGE_BYTES or atomic_load(stream + 8 * BROKEN) != 0:
        return 0
    frame = _slot(stream, OUT, n_queued)
    copy_bytes(frame + LENGTH_BYTES, header, n_header)
    copy_bytes(frame + LENGTH_BYTES + n_header, payload, n_payload)
    if seal(stream, frame + LENGTH_BYTES, n_bytes, frame) < 0:
        return 0
    atomic_store(counter, n_queued + 1)
    _wake(counter)
    return 1


@jitted
def _announce(stream):
    """Wakes the reader if it sleeps."""
    if atomic_load(word(stream, ASLEEP_AT)) != 0:
        write(word(stream, EVENT_FD), stream + 8 * ONE, 8)


@jitted
def _send_frame(stream, frame):
    """Sends a frame; returns False where the stream is broken."""
    at, n_left = frame, LENGTH_BYTES + word(frame, 0)
    while n_left > 0:
        n = send(word(stream, FD), at, n_left, NO_SIGNAL)
        if n < 0:
            if is_later():
                continue
            break_off(stream, errno())
            return False
        at, n_left = at + n, n_left - n
    return True


@kernel
def serve_sending(stream):
    """Sends what is queued until the stream is stopped or broken."""
    n_sent = 0
    while True:
        n_queued = atomic_load(stream + 8 * N_QUEUED)
        if atomic_load(stream + 8 * STOP) != 0:  # set before the counter is raised for it
            return
        if n_queued == n_sent:
            _wait(stream + 8 * N_QUEUED, n_queued)
        elif _send_frame(stream, _slot(stream, OUT, n_sent)):
            n_sent += 1
            atomic_store(stream + 8 * N_SENT, n_sent)
        else:
            _announce(stream)
            return


@jitted
def _receive(stream, to, n_bytes):
    """Receives some bytes; returns False where the stream is broken."""
    while n_bytes > 0:
        n = recv(word(stream, FD), to, n_bytes, WAIT_ALL)
        if n == 0 or (n < 0 and not is_later()):
            break_off(stream, CLOSED if n == 0 else errno())
            return False
        to, n_bytes = to + max(0, n), n_bytes - max(0, n)
    return True


@kernel
def serve_receiving(stream):
    """Receives messages until the stream is stopped or broken."""
    n_came = 0
    while True:
        n_taken = atomic_load(stream + 8 * N_TAKEN)
        if atomic_load(stream + 8 * STOP) != 0:
            return
        if n_came - n_taken >= N_SLOTS:
            _wait(stream + 8 * N_TAKEN, n_taken)
            continue
        frame = _slot(stream, IN, n_came)
        if not _receive(stream, frame, LENGTH_BYTES):
            break
        n_body = body_bytes(stream, frame, MAX_MESSAGE_BYTES)
        if n_body < 0 or not _receive(stream, frame + LENGTH_BYTES, n_body):
            break
        if unseal(stream, frame) < 0:
            break
        n_came += 1
        atomic_store(stream + 8 * N_CAME, n_came)
        _announce(stream)
    _announce(stream)


@kernel
def find(streams):
    """Returns the first of the streams at some addresses (n,) int64 that has a message or is
    broken, -1 where none has one."""
    for i in range(len(streams)):
        stream = streams[i]
        if atomic_load(stream + 8 * N_CAME) != atomic_load(stream + 8 * N_TAKEN):
            return i
        if atomic_load(stream + 8 * BROKEN) != 0:
            return i
    return -1


@kernel
def free(stream):
    """Frees the slot of the first message that has come."""
    n_taken = atomic_load(stream + 8 * N_TAKEN) + 1
    atomic_store(stream + 8 * N_TAKEN, n_taken)
    _wake(stream + 8 * N_TAKEN)


@kernel
def stop(stream):
    """Lets both threads end once their calls of the system have."""
    atomic_store(stream + 8 * STOP, 1)
    for counter in (N_QUEUED, N_TAKEN):
        atomic_store(stream + 8 * counter, atomic_load(stream + 8 * counter) + 1)
        _wake(stream + 8 * counter)


@kernel
def set_bell(where, is_needed):
    """Records at an address whether the reader sleeps."""
    atomic_store(where, is_needed)
