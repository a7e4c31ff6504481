"""Messages between two ranks of one machine through memory that both have mapped: one writes, one
reads. Linux only; elsewhere, and between machines, everything goes by ZeroMQ.

The memory is a file without a name (memfd), which the reader opens through /proc: nothing is left
behind when a process is killed. Whether both are on one machine is not guessed: the reader opens
what the writer offers, and finds the writer's nonce there or not.

Layout, little-endian: word 0 the nonce, word 1 set once the reader is there, then the counters of
ring_kernels, each on its own cache line; from HEADER_BYTES on N_SLOTS slots, each the length of
its message (int64) and the message.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import sys
from contextlib import suppress

import numpy as np

from dllama.errors import ProtocolError
from kernels.wire.rings import (
    ATTACHED,
    HEADER_BYTES,
    N_SLOTS,
    NONCE,
    READ,
    SLOT_BYTES,
    WRITTEN,
    publish,
)

RING_BYTES = HEADER_BYTES + N_SLOTS * SLOT_BYTES
OFFER = struct.Struct("<QQQ")  # process id, file descriptor, nonce
_LENGTH = struct.Struct("<q")
IS_SUPPORTED = sys.platform.startswith("linux") and hasattr(os, "memfd_create")

if IS_SUPPORTED:
    import fcntl

    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    """A file that shrinks under a mapping kills who reads it."""


class RingWriter:
    """The sending end; makes the memory. Raises OSError where the system has none to give."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("dllama-mesh", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, RING_BYTES)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(self._fd, RING_BYTES)
        except OSError:
            os.close(self._fd)
            raise
        self._words = np.frombuffer(self._memory, np.int64, HEADER_BYTES // 8)
        self.address = self._words.ctypes.data
        self._nonce = secrets.randbits(62) + 1
        self._words[NONCE] = self._nonce

    @property
    def offer(self) -> bytes:
        """Returns the bytes by which the reader finds this ring."""
        return OFFER.pack(os.getpid(), self._fd, self._nonce)

    @property
    def has_reader(self) -> bool:
        """Whether another rank has opened it."""
        return bool(self._words[ATTACHED])

    def write(self, *parts: bytes | bytearray | memoryview) -> bool | None:
        """Writes a message, given in one part or several of bytes; returns whether the reader has
        to be woken, or None if nothing was written because there is no reader or no room."""
        words, n_bytes = self._words, sum(map(len, parts))
        n_written = int(words[WRITTEN])
        is_full = n_written - int(words[READ]) >= N_SLOTS
        if not words[ATTACHED] or is_full or n_bytes > SLOT_BYTES - _LENGTH.size:
            return None
        at = HEADER_BYTES + n_written % N_SLOTS * SLOT_BYTES
        _LENGTH.pack_into(self._memory, at, n_bytes)
        at += _LENGTH.size
        for part in parts:
            self._memory[at : at + len(part)] = part
            at += len(part)
        return bool(publish(self.address, n_written + 1))

    def close(self) -> None:
        del self._words
        self._memory.close()
        os.close(self._fd)


class RingReader:
    """The receiving end of a ring that a writer offered."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self.words = np.frombuffer(memory, np.int64, HEADER_BYTES // 8)
        self.address = self.words.ctypes.data
        self.words[ATTACHED] = 1

    @classmethod
    def attach(cls, offer: bytes | memoryview) -> RingReader | None:
        """Opens the ring of an offer; None if the ring is not on this machine. Whatever else an
        offer leads to is neither waited for nor mapped."""
        if not IS_SUPPORTED or len(offer) != OFFER.size:
            return None
        pid, number, nonce = OFFER.unpack(offer)
        try:
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        memory = None
        with suppress(OSError, ValueError):
            is_sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
            if is_sealed and os.fstat(fd).st_size == RING_BYTES:
                memory = mmap.mmap(fd, RING_BYTES)
        os.close(fd)
        if memory is None:
            return None
        if int.from_bytes(memory[:8], "little") != nonce:
            memory.close()
            return None
        return cls(memory)

    def take(self) -> bytes:
        """Returns the next message, which must be there. Raises ProtocolError if its length is
        impossible."""
        n_read = int(self.words[READ])
        at = HEADER_BYTES + n_read % N_SLOTS * SLOT_BYTES
        (n_bytes,) = _LENGTH.unpack_from(self._memory, at)
        if not 0 < n_bytes <= SLOT_BYTES - _LENGTH.size:
            raise ProtocolError(
                f"a message of {n_bytes} bytes does not fit a slot of shared memory; install the "
                "same dllama on every node"
            )
        at += _LENGTH.size
        message = self._memory[at : at + n_bytes]
        self.words[READ] = n_read + 1
        return message

    def close(self) -> None:
        del self.words
        self._memory.close()
