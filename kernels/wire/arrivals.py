"""Receives the messages of an exchange (kernels/wire/exchange.py): by rings of shared memory, by
lines, or by ZeroMQ. A rank polls for them, and sleeps where that takes long."""

from __future__ import annotations

from kernels.emit.intrinsics import (
    atomic_exchange,
    atomic_load,
    call_c,
    call_c_int,
    load_i64,
    pause,
    store_i64,
)
from kernels.emit.jit import jitted
from kernels.emit.system import clock_ns, sched_yield
from kernels.wire import places as at
from kernels.wire.frames import BROKEN, FD, word
from kernels.wire.lines import N_LEFT, flush_line, free_line, look_at_line, message_of
from kernels.wire.rings import ASLEEP, HEADER_BYTES, N_SLOTS, READ, SLOT_BYTES, WRITTEN

_ALL_BUT_RANK = (1 << 48) - 1  # bits of a message's first word
_DONTWAIT = 1  # of ZeroMQ
_POLL_IN, _POLL_OUT, _ITEM_BYTES = 1, 2, 16  # of zmq_poll: a socket, and fd, events, what came
_POLL_MS = 250
_SILENCE_NS = 250_000_000  # after which Python looks around


@jitted
def _sender(session, peers, call, data, n_bytes):
    """The rank whose message is at an address, if this exchange waits for it: with this rank's own
    header but for who sends, and how long it computed. Else -1."""
    if n_bytes != at.MESSAGE_HEADER_BYTES + call[at.N_BYTES]:
        return -1
    own = call[at.MESSAGE]
    first = load_i64(data)
    rank = (first >> 48) & 0xFFFF
    if (first ^ load_i64(own)) & _ALL_BUT_RANK != 0 or rank >= session[at.WORLD_SIZE]:
        return -1
    if load_i64(data + 8) != load_i64(own + 8) or load_i64(data + 16) != load_i64(own + 16):
        return -1
    if load_i64(data + at.SEQUENCE_AT) != session[at.SEQUENCE]:
        return -1
    if rank == session[at.RANK] or peers[rank, at.FROM] != at.NOT_YET:
        return -1
    return rank


@jitted
def _accept(session, peers, rank, data, n_bytes, by):
    """Notes the message of a rank."""
    peers[rank, at.FROM], peers[rank, at.PAYLOAD] = by, data + at.MESSAGE_HEADER_BYTES
    session[at.SLOWEST_NS] = max(session[at.SLOWEST_NS], load_i64(data + at.COMPUTE_AT))
    session[at.RECEIVED_BYTES] += n_bytes


@jitted
def _look_at_rings(session, peers, call):
    """Accepts what has come by rings. Returns how many did, -1 for another message."""
    n_found = 0
    for rank in range(session[at.WORLD_SIZE]):
        ring = peers[rank, at.RING_IN]
        if ring == 0 or peers[rank, at.FROM] != at.NOT_YET:
            continue
        read = atomic_load(ring + 8 * READ)
        if atomic_load(ring + 8 * WRITTEN) == read:
            continue
        slot = ring + HEADER_BYTES + (read & (N_SLOTS - 1)) * SLOT_BYTES
        n_bytes = load_i64(slot)
        if _sender(session, peers, call, slot + 8, n_bytes) != rank:
            return -1
        _accept(session, peers, rank, slot + 8, n_bytes, at.BY_RING)
        n_found += 1
    return n_found


@jitted
def _look_at_lines(session, peers, call):
    """Accepts what has come by lines. Returns how many did, -1 for another message or a broken
    line."""
    n_found = 0
    for rank in range(session[at.WORLD_SIZE]):
        line = peers[rank, at.LINE]
        if line == 0:
            continue
        if peers[rank, at.FROM] != at.NOT_YET:
            flush_line(line)
            continue
        n_bytes = look_at_line(line)
        if n_bytes == 0:
            continue
        if n_bytes < 0 or _sender(session, peers, call, message_of(line), n_bytes) != rank:
            return -1
        _accept(session, peers, rank, message_of(line), n_bytes, at.BY_LINE)
        n_found += 1
    return n_found


@jitted
def _receive(session, peers, call, flags):
    """Takes one message from the inbox. Returns how many were accepted, -1 for another message,
    which stays in the spare zmq_msg_t, -2 where nothing came."""
    spare = session[at.MESSAGES] + at.ZMQ_MSG_BYTES * session[at.RANK]
    if call_c_int(session[at.RECEIVE], (spare, session[at.INBOX], flags)) < 0:
        return -2
    n_bytes = call_c(session[at.SIZE], (spare,))
    if call_c_int(session[at.MORE], (spare,)) != 0:
        return -1
    if n_bytes == 0:  # something is in a ring
        return 0
    rank = _sender(session, peers, call, call_c(session[at.DATA], (spare,)), n_bytes)
    if rank < 0:
        return -1
    kept = session[at.MESSAGES] + at.ZMQ_MSG_BYTES * rank
    call_c_int(session[at.MOVE], (kept, spare))
    _accept(session, peers, rank, call_c(session[at.DATA], (kept,)), n_bytes, at.BY_ZMQ)
    return 1


@jitted
def _mark_asleep(session, peers, is_asleep):
    for rank in range(session[at.WORLD_SIZE]):
        if peers[rank, at.RING_IN] != 0:
            atomic_exchange(peers[rank, at.RING_IN] + 8 * ASLEEP, is_asleep)


@jitted
def _block(session, peers, call):
    """Blocks until something comes by ZeroMQ or a line; returns as `_receive` does."""
    if session[at.N_ITEMS] == 0:
        return _receive(session, peers, call, 0)
    item = session[at.ITEMS] + _ITEM_BYTES
    for rank in range(session[at.WORLD_SIZE]):
        line = peers[rank, at.LINE]
        if line == 0:
            continue
        events = _POLL_IN if peers[rank, at.FROM] == at.NOT_YET else 0  # else what comes can wait
        if word(line, N_LEFT) > 0:
            events |= _POLL_OUT
        # A connection that is gone would end the sleep at once, each time.
        fd = word(line, FD) if events != 0 and word(line, BROKEN) == 0 else -1
        store_i64(item + 8, (fd & 0xFFFFFFFF) | (events << 32))
        item += _ITEM_BYTES
    if call_c_int(session[at.POLL], (session[at.ITEMS], session[at.N_ITEMS], _POLL_MS)) <= 0:
        return -2
    found = _look_at_lines(session, peers, call)
    if found == 0:
        found = _receive(session, peers, call, _DONTWAIT)
    return 0 if found == -2 else found


@jitted
def _sleep(session, peers, call):
    """Blocks until something comes; returns as `_receive` does."""
    _mark_asleep(session, peers, 1)
    found = _look_at_rings(session, peers, call)  # it may have come before the writer knew
    if found == 0:
        found = _look_at_lines(session, peers, call)  # with what was read with the message before
    if found == 0:
        found = _block(session, peers, call)
    _mark_asleep(session, peers, 0)
    return found


@jitted
def _look(session, peers, call, n_looks):
    """Looks at rings, lines and the inbox once; returns as `_receive` does."""
    found = 0
    for _ in range(n_looks):
        found = _look_at_rings(session, peers, call)
        if found != 0:
            return found
        pause()
    found = _look_at_lines(session, peers, call)
    return found if found != 0 else _receive(session, peers, call, _DONTWAIT)


@jitted
def await_all(session, peers, call, n_looks):
    """Waits for the messages of all peers; returns whether they have come. Where none comes for a
    while, Python looks around."""
    n_left = session[at.WORLD_SIZE] - 1
    now = clock_ns()
    until, silent_until = now + session[at.POLL_NS], now + _SILENCE_NS
    while n_left > 0:
        if session[at.RESTING] > 0 or now >= until:
            found = _sleep(session, peers, call)
            now = clock_ns()
        else:
            found = _look(session, peers, call, n_looks)
            if found == -2:
                sched_yield()
                before, now = now, clock_ns()
                if now - before > at.AWAY_NS:
                    session[at.RESTING] = at.N_RESTS
                found = 0
        if found < 0:
            return False
        if found > 0:
            silent_until = now + _SILENCE_NS
        elif now > silent_until:
            return False
        n_left -= found
    return True


@jitted
def free_all(session, peers):
    """Gives the slots of rings back to their writers, and the buffers of lines to what comes."""
    for rank in range(session[at.WORLD_SIZE]):
        if peers[rank, at.FROM] == at.BY_LINE:
            free_line(peers[rank, at.LINE])
        if peers[rank, at.FROM] == at.BY_RING:
            ring = peers[rank, at.RING_IN]
            atomic_exchange(ring + 8 * READ, atomic_load(ring + 8 * READ) + 1)
