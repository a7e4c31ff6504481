"""One small sum over all ranks, in compiled code: sends this rank's addend to every other, waits
for theirs and adds up, without Python and without its lock.

Messages are those of cluster/mesh/links.py: a header and a payload in one ZeroMQ frame, in a ring
of shared memory (cluster/mesh/shared_ring.py) or on a line (kernels/wire/lines.py). libzmq's
functions are called by their addresses. Whatever is out of the ordinary, a message that is not the
one waited for, a peer that takes nothing, silence, a sum that needs more than 32 bits, ends the
call early: Python then goes on from the stage that `session` tells.

All of an exchange's numbers are in arrays of int64 (kernels/wire/places.py).
"""

from __future__ import annotations

from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import (
    address,
    atomic_exchange,
    atomic_load,
    call_c_int,
    copy_bytes,
    store_i64,
)
from kernels.emit.jit import intrinsic, jitted, kernel
from kernels.emit.later import types
from kernels.emit.system import clock_ns
from kernels.emit.vectors import F32X16, I64
from kernels.weights.layout import GROUP
from kernels.wire import places as at
from kernels.wire.arrivals import await_all, free_all
from kernels.wire.fixed import add_vectors
from kernels.wire.lines import send_by_line
from kernels.wire.rings import ASLEEP, ATTACHED, HEADER_BYTES, N_SLOTS, READ, SLOT_BYTES, WRITTEN

_DONTWAIT = 1  # of ZeroMQ


@intrinsic
def _add_floats(typingctx: Any, parts: Any, n_parts: Any, n_vectors: Any, out: Any) -> Any:
    """Writes the sums of n_vectors vectors of 16 float32 to address `out`, added in their order;
    `parts` is the address of n_parts addresses, int64 each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        parts, n_parts, n_vectors, out = args
        total = e.variable(e.constant(F32X16, 0.0))
        with e.loop(n_vectors) as i:
            at = builder.mul(i, e.i64(4 * GROUP))
            total.set(e.load(F32X16, builder.add(e.load(I64, parts, 8), at)))
            with e.loop(builder.sub(n_parts, e.i64(1))) as k:
                place = builder.add(parts, builder.mul(builder.add(k, e.i64(1)), e.i64(8)))
                addend = e.load(F32X16, builder.add(e.load(I64, place, 8), at))
                total.set(builder.fadd(total.get(), addend))
            e.store(total.get(), builder.add(out, at))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@jitted
def _is_wide(marks):
    """Whether a group of the addend needs more than 32 bits."""
    found = 0
    for i in range(len(marks)):
        found |= marks[i]
    return found != 0


@jitted
def _write_to_ring(ring, message, n_bytes):
    """Writes a message; returns whether the reader sleeps, -1 where there is no reader or room."""
    written = atomic_load(ring + 8 * WRITTEN)
    is_full = written - atomic_load(ring + 8 * READ) >= N_SLOTS
    if is_full or atomic_load(ring + 8 * ATTACHED) == 0 or n_bytes > SLOT_BYTES - 8:
        return -1
    slot = ring + HEADER_BYTES + (written & (N_SLOTS - 1)) * SLOT_BYTES
    store_i64(slot, n_bytes)
    copy_bytes(slot + 8, message, n_bytes)
    atomic_exchange(ring + 8 * WRITTEN, written + 1)
    return atomic_load(ring + 8 * ASLEEP)


@jitted
def _send(session, peers, rank, message, n_bytes):
    """Sends to a rank; returns whether it was taken."""
    out, ring, line = peers[rank, at.OUT], peers[rank, at.RING_OUT], peers[rank, at.LINE]
    sleeps = -1 if ring == 0 else _write_to_ring(ring, message, n_bytes)
    if sleeps >= 0:
        if sleeps > 0:  # a queue that is full wakes it as well
            call_c_int(session[at.SEND], (out, message, 0, _DONTWAIT))
        return True
    if line != 0 and send_by_line(line, message, n_bytes) > 0:
        return True
    return call_c_int(session[at.SEND], (out, message, n_bytes, _DONTWAIT)) == n_bytes


@jitted
def _leave(session):
    """Counts the times of an exchange (cluster/mesh/collective.py)."""
    now, started = clock_ns(), session[at.STARTED_NS]
    computed, blocked = started - session[at.SINCE_NS], now - started
    waited = min(blocked, max(0, session[at.SLOWEST_NS] - computed))
    session[at.COMPUTE_NS] += computed
    session[at.WAIT_NS] += waited
    session[at.NETWORK_NS] += blocked - waited
    session[at.SINCE_NS] = now


@jitted
def _begin(session, peers, call):
    """Enters the next collective, and writes this rank's message."""
    started, message = clock_ns(), call[at.MESSAGE]
    session[at.STARTED_NS], session[at.SLOWEST_NS] = started, 0
    session[at.SEQUENCE] += 1
    store_i64(message + at.SEQUENCE_AT, session[at.SEQUENCE])
    store_i64(message + at.COMPUTE_AT, started - session[at.SINCE_NS])
    copy_bytes(message + at.MESSAGE_HEADER_BYTES, call[at.ADDEND], call[at.N_BYTES])
    for rank in range(session[at.WORLD_SIZE]):
        peers[rank, at.FROM] = at.NOT_YET


@kernel
def exchange(session, peers, call, marks, n_looks):
    """Adds up one small payload over all ranks; returns 0 if it did, 1 where Python has to go on.

    `marks` (uint8) tell which groups of exact sums are wide; `n_looks` is how often rings are
    looked at between two looks at the socket.
    """
    if session[at.N_EARLY] > 0 or _is_wide(marks):
        return 1
    message, n_bytes = call[at.MESSAGE], call[at.N_BYTES]
    _begin(session, peers, call)
    session[at.STAGE], session[at.N_SENT] = at.SENDING, 0
    for rank in range(session[at.WORLD_SIZE]):
        if rank != session[at.RANK]:
            if not _send(session, peers, rank, message, at.MESSAGE_HEADER_BYTES + n_bytes):
                return 1
            session[at.SENT_BYTES] += at.MESSAGE_HEADER_BYTES + n_bytes
        session[at.N_SENT] += 1
    session[at.STAGE] = at.RECEIVING
    if not await_all(session, peers, call, n_looks):
        return 1
    session[at.RESTING] = max(0, session[at.RESTING] - 1)
    for rank in range(session[at.WORLD_SIZE]):
        call[at.CALL_WORDS + rank] = peers[rank, at.PAYLOAD]
    call[at.CALL_WORDS + session[at.RANK]] = message + at.MESSAGE_HEADER_BYTES
    parts, n_groups = address(call) + 8 * at.CALL_WORDS, n_bytes // (4 * GROUP)
    if call[at.IS_EXACT] != 0:
        add_vectors(parts, session[at.WORLD_SIZE], n_groups, call[at.TOTAL])
    else:
        _add_floats(parts, session[at.WORLD_SIZE], n_groups, call[at.TOTAL])
    free_all(session, peers)
    session[at.STAGE] = at.NOT_BEGUN
    _leave(session)
    return 0
