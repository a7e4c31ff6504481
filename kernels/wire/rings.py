"""The counters of shared rings, read and written without the GIL. See shared_ring for the layout;
`ring` is the address of a ring's first byte."""

from __future__ import annotations

from kernels.emit.intrinsics import atomic_exchange, atomic_load, pause
from kernels.emit.jit import kernel

NONCE, ATTACHED = 0, 1  # words
WRITTEN, READ, ASLEEP = 8, 16, 24  # words, each on a cache line of its own
N_SLOTS = 8  # a power of two; a long step has six messages under way
SLOT_BYTES = (1 << 20) + 4096  # the mesh's longest block, and its header
HEADER_BYTES = 4096


@kernel
def publish(ring, n_written):
    """Publishes one more message to the reader; returns whether the reader sleeps. The exchange is
    a full barrier: either this side sees the reader asleep, or the reader sees the message."""
    atomic_exchange(ring + 8 * WRITTEN, n_written)
    return atomic_load(ring + 8 * ASLEEP)


@kernel
def fall_asleep(ring, is_asleep):
    """Records for the writer whether it has to wake this side."""
    atomic_exchange(ring + 8 * ASLEEP, is_asleep)


@kernel
def wait_any(rings, n_looks):
    """Polls for at most n_looks rounds; returns the first ring with a new message, or -1.

    rings (R,) int64 are the rings' addresses.
    """
    for _ in range(n_looks):
        for i in range(len(rings)):
            if atomic_load(rings[i] + 8 * WRITTEN) != atomic_load(rings[i] + 8 * READ):
                return i
        pause()
    return -1
