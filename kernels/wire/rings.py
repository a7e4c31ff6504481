"""The counters of shared rings, read and written without the GIL. See shared_ring for the layout;
words are int64 arrays over the ring's first bytes."""

from __future__ import annotations

from kernels.emit.intrinsics import address, atomic_exchange, atomic_load, pause
from kernels.emit.jit import kernel

WRITTEN, READ, ASLEEP = 8, 16, 24  # words, each on a cache line of its own


@kernel
def publish(words, n_written):
    """Publishes one more message to the reader; returns whether the reader sleeps. The exchange is
    a full barrier: either this side sees the reader asleep, or the reader sees the message."""
    at = address(words)
    atomic_exchange(at + 8 * WRITTEN, n_written)
    return atomic_load(at + 8 * ASLEEP)


@kernel
def fall_asleep(words, is_asleep):
    """Records for the writer whether it has to wake this side."""
    atomic_exchange(address(words) + 8 * ASLEEP, is_asleep)


@kernel
def wait_any(counters, seen, n_looks):
    """Polls for at most n_looks rounds; returns the first ring with a new message, or -1.

    counters (R,) int64 are the addresses of WRITTEN, seen (R,) the counts read so far.
    """
    for _ in range(n_looks):
        for i in range(len(counters)):
            if atomic_load(counters[i]) != seen[i]:
                return i
        pause()
    return -1


@kernel
def counter_address(words):
    """The address of a ring's WRITTEN."""
    return address(words) + 8 * WRITTEN
