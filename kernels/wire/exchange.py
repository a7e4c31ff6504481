"""One small sum over all ranks, in compiled code: sends this rank's addend to every other, waits
for theirs and adds up, without Python and without its lock.

Messages are those of cluster/mesh/links.py: a header and a payload in one ZeroMQ frame, or in a
ring of shared memory (cluster/mesh/shared_ring.py). libzmq's functions are called by their
addresses. Whatever is out of the ordinary, a message that is not the one waited for, a peer that
takes nothing, silence, a sum that needs more than 32 bits, ends the call early: Python then goes on
from the stage that `session` tells.

All of an exchange's numbers are in arrays of int64; the names below are places in them.
"""

from __future__ import annotations

from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import (
    address,
    atomic_exchange,
    atomic_load,
    call_c,
    call_c_int,
    copy_bytes,
    load_i64,
    pause,
    store_i64,
)
from kernels.emit.jit import intrinsic, jitted, kernel
from kernels.emit.later import types
from kernels.emit.system import clock_ns, sched_yield
from kernels.emit.vectors import F32X16, I64
from kernels.weights.layout import GROUP
from kernels.wire.fixed import add_vectors
from kernels.wire.rings import ASLEEP, ATTACHED, HEADER_BYTES, N_SLOTS, READ, SLOT_BYTES, WRITTEN

# of a session: what stays the same, and what both Python and compiled code count
(
    SEQUENCE,  # the collective this rank is in
    N_EARLY,  # messages that Python has filed
    SINCE_NS,  # when this rank began to compute
    COMPUTE_NS, WAIT_NS, NETWORK_NS,  # sums
    SENT_BYTES, RECEIVED_BYTES,  # sums
    STAGE,  # of an exchange that ended early
    STARTED_NS, SLOWEST_NS,  # of this exchange
    N_SENT,  # peers that have been sent to
    RESTING,  # messages to sleep for at once
    RANK, WORLD_SIZE, INBOX,
    MESSAGES,  # the address of a zmq_msg_t for each rank, for what it sent; this rank's is spare
    SEND, RECEIVE, MOVE, DATA, SIZE, MORE,  # the addresses of libzmq's functions
    SESSION_WORDS,
) = range(24)  # fmt: skip

# of each rank
OUT, RING_OUT, RING_IN, FROM, PAYLOAD, PEER_WORDS = range(6)

# of a call, and behind them the addresses of all payloads in rank order
IS_EXACT, N_BYTES, ADDEND, TOTAL, MESSAGE, CALL_WORDS = range(6)

NOT_BEGUN, SENDING, RECEIVING = range(3)  # stages
NOT_YET, BY_ZMQ, BY_RING = range(3)  # in FROM: how a rank's message came

MESSAGE_HEADER_BYTES = 48
_SEQUENCE_AT, _COMPUTE_AT = 20, 28  # in a message's header
_ALL_BUT_RANK = (1 << 48) - 1  # bits of its first word
ZMQ_MSG_BYTES = 64
_DONTWAIT = 1

SPIN_NS = 1_000_000
"""How long a rank polls for a message before it blocks. A core that sleeps takes tens of
microseconds to wake, at every collective; yielding between two polls leaves the core to ZeroMQ's
own thread."""

AWAY_NS = 200_000  # a yield that takes longer means that another thread needs this core
N_RESTS = 64  # exchanges to sleep in at once after that: those of a token or two
RING_LOOKS = 200  # polls of shared rings between two of the socket: some microseconds


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
    out, ring = peers[rank, OUT], peers[rank, RING_OUT]
    sleeps = -1 if ring == 0 else _write_to_ring(ring, message, n_bytes)
    if sleeps == 0:
        return True
    length = n_bytes if sleeps < 0 else 0  # nothing but a wake-up
    return call_c_int(session[SEND], (out, message, length, _DONTWAIT)) == length


@jitted
def _sender(session, peers, call, data, n_bytes):
    """The rank whose message is at an address, if this exchange waits for it: with this rank's own
    header but for who sends, and how long it computed. Else -1."""
    if n_bytes != MESSAGE_HEADER_BYTES + call[N_BYTES]:
        return -1
    own = call[MESSAGE]
    first = load_i64(data)
    rank = (first >> 48) & 0xFFFF
    if (first ^ load_i64(own)) & _ALL_BUT_RANK != 0 or rank >= session[WORLD_SIZE]:
        return -1
    if load_i64(data + 8) != load_i64(own + 8) or load_i64(data + 16) != load_i64(own + 16):
        return -1
    if load_i64(data + _SEQUENCE_AT) != session[SEQUENCE]:
        return -1
    if rank == session[RANK] or peers[rank, FROM] != NOT_YET:
        return -1
    return rank


@jitted
def _accept(session, peers, rank, data, n_bytes, by):
    """Notes the message of a rank."""
    peers[rank, FROM], peers[rank, PAYLOAD] = by, data + MESSAGE_HEADER_BYTES
    session[SLOWEST_NS] = max(session[SLOWEST_NS], load_i64(data + _COMPUTE_AT))
    session[RECEIVED_BYTES] += n_bytes


@jitted
def _look_at_rings(session, peers, call):
    """Accepts what has come by rings. Returns how many did, -1 for another message."""
    n_found = 0
    for rank in range(session[WORLD_SIZE]):
        ring = peers[rank, RING_IN]
        if ring == 0 or peers[rank, FROM] != NOT_YET:
            continue
        read = atomic_load(ring + 8 * READ)
        if atomic_load(ring + 8 * WRITTEN) == read:
            continue
        slot = ring + HEADER_BYTES + (read & (N_SLOTS - 1)) * SLOT_BYTES
        n_bytes = load_i64(slot)
        if _sender(session, peers, call, slot + 8, n_bytes) != rank:
            return -1
        _accept(session, peers, rank, slot + 8, n_bytes, BY_RING)
        n_found += 1
    return n_found


@jitted
def _receive(session, peers, call, flags):
    """Takes one message from the inbox. Returns how many were accepted, -1 for another message,
    which stays in the spare zmq_msg_t, -2 where nothing came."""
    spare = session[MESSAGES] + ZMQ_MSG_BYTES * session[RANK]
    if call_c_int(session[RECEIVE], (spare, session[INBOX], flags)) < 0:
        return -2
    n_bytes = call_c(session[SIZE], (spare,))
    if call_c_int(session[MORE], (spare,)) != 0:
        return -1
    if n_bytes == 0:  # something is in a ring
        return 0
    rank = _sender(session, peers, call, call_c(session[DATA], (spare,)), n_bytes)
    if rank < 0:
        return -1
    kept = session[MESSAGES] + ZMQ_MSG_BYTES * rank
    call_c_int(session[MOVE], (kept, spare))
    _accept(session, peers, rank, call_c(session[DATA], (kept,)), n_bytes, BY_ZMQ)
    return 1


@jitted
def _mark_asleep(session, peers, is_asleep):
    for rank in range(session[WORLD_SIZE]):
        if peers[rank, RING_IN] != 0:
            atomic_exchange(peers[rank, RING_IN] + 8 * ASLEEP, is_asleep)


@jitted
def _sleep(session, peers, call):
    """Blocks until something comes; returns as `_receive` does."""
    _mark_asleep(session, peers, 1)
    found = _look_at_rings(session, peers, call)  # it may have come before the writer knew
    if found == 0:
        found = _receive(session, peers, call, 0)
    _mark_asleep(session, peers, 0)
    return found


@jitted
def _look(session, peers, call, n_looks):
    """Looks at rings and the inbox once; returns as `_receive` does."""
    found = 0
    for _ in range(n_looks):
        found = _look_at_rings(session, peers, call)
        if found != 0:
            return found
        pause()
    return _receive(session, peers, call, _DONTWAIT)


@jitted
def _await(session, peers, call, n_looks):
    """Waits for the messages of all peers; returns whether they have come."""
    n_left = session[WORLD_SIZE] - 1
    now = clock_ns()
    until = now + SPIN_NS
    while n_left > 0:
        if session[RESTING] > 0 or now >= until:
            found = _sleep(session, peers, call)
            if found == -2:
                return False
        else:
            found = _look(session, peers, call, n_looks)
            if found == -2:
                sched_yield()
                before, now = now, clock_ns()
                if now - before > AWAY_NS:
                    session[RESTING] = N_RESTS
                found = 0
        if found < 0:
            return False
        n_left -= found
    return True


@jitted
def _free_slots(session, peers):
    """Gives the slots of rings back to their writers."""
    for rank in range(session[WORLD_SIZE]):
        if peers[rank, FROM] == BY_RING:
            ring = peers[rank, RING_IN]
            atomic_exchange(ring + 8 * READ, atomic_load(ring + 8 * READ) + 1)


@jitted
def _leave(session):
    """Counts the times of an exchange (cluster/mesh/collective.py)."""
    now, started = clock_ns(), session[STARTED_NS]
    computed, blocked = started - session[SINCE_NS], now - started
    waited = min(blocked, max(0, session[SLOWEST_NS] - computed))
    session[COMPUTE_NS] += computed
    session[WAIT_NS] += waited
    session[NETWORK_NS] += blocked - waited
    session[SINCE_NS] = now


@jitted
def _begin(session, peers, call):
    """Enters the next collective, and writes this rank's message."""
    started, message = clock_ns(), call[MESSAGE]
    session[STARTED_NS], session[SLOWEST_NS] = started, 0
    session[SEQUENCE] += 1
    store_i64(message + _SEQUENCE_AT, session[SEQUENCE])
    store_i64(message + _COMPUTE_AT, started - session[SINCE_NS])
    copy_bytes(message + MESSAGE_HEADER_BYTES, call[ADDEND], call[N_BYTES])
    for rank in range(session[WORLD_SIZE]):
        peers[rank, FROM] = NOT_YET


@kernel
def exchange(session, peers, call, marks, n_looks):
    """Adds up one small payload over all ranks; returns 0 if it did, 1 where Python has to go on.

    `marks` (uint8) tell which groups of exact sums are wide; `n_looks` is how often rings are
    looked at between two looks at the socket.
    """
    if session[N_EARLY] > 0 or _is_wide(marks):
        return 1
    message, n_bytes = call[MESSAGE], call[N_BYTES]
    _begin(session, peers, call)
    session[STAGE], session[N_SENT] = SENDING, 0
    for rank in range(session[WORLD_SIZE]):
        if rank != session[RANK]:
            if not _send(session, peers, rank, message, MESSAGE_HEADER_BYTES + n_bytes):
                return 1
            session[SENT_BYTES] += MESSAGE_HEADER_BYTES + n_bytes
        session[N_SENT] += 1
    session[STAGE] = RECEIVING
    if not _await(session, peers, call, n_looks):
        return 1
    session[RESTING] = max(0, session[RESTING] - 1)
    for rank in range(session[WORLD_SIZE]):
        call[CALL_WORDS + rank] = peers[rank, PAYLOAD]
    call[CALL_WORDS + session[RANK]] = message + MESSAGE_HEADER_BYTES
    parts, n_groups = address(call) + 8 * CALL_WORDS, n_bytes // (4 * GROUP)
    if call[IS_EXACT] != 0:
        add_vectors(parts, session[WORLD_SIZE], n_groups, call[TOTAL])
    else:
        _add_floats(parts, session[WORLD_SIZE], n_groups, call[TOTAL])
    _free_slots(session, peers)
    session[STAGE] = NOT_BEGUN
    _leave(session)
    return 0
