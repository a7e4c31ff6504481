"""Reading and writing the counters of shared rings, without the GIL. See shared_ring for the
layout; words are int64 arrays over the ring's first bytes."""

from __future__ import annotations

from kernels.intrinsics import address, atomic_exchange, atomic_load, pause
from kernels.jit import kernel

WRITTEN, READ, ASLEEP = 8, 16, 24  # words, each on a cache line of its own


@kernel
def publish(words, n_written):
    """Tells the reader of one more message; whether it sleeps. The exchange is a full barrier:
    either this side sees the reader asleep, or the reader sees the message."""
    at = address(words)
    atomic_exchange(at + 8 * WRITTEN, n_written)
    return atomic_load(at + 8 * ASLEEP)


@kernel
def fall_asleep(words, is_asleep):
    """Tells the writer whether it has to wake this side."""
    atomic_exchange(address(words) + 8 * ASLEEP, is_asleep)


@kernel
def wait_any(counters, seen, n_looks):
    """The first ring with a message that was not seen, after at most n_looks rounds; or -1.

    counters (R,) int64 are the addresses of WRITTEN, seen (R,) how much of each was read.
    """
    for _ in range(n_looks):
        for i in range(len(counters)):
            if atomic_load(counters[i]) != seen[i]:
                return i
        pause()
    return -1


@kernel
def counter_address(words):
    """Where a ring's WRITTEN is."""
    return address(words) + 8 * WRITTEN
