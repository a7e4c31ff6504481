"""One end of a stream: a TCP connection to another rank for long messages, with two threads that
send and receive beside the computing (kernels/wire/streams.py). They make a few calls of the system
a message where ZeroMQ's thread makes one for each 8 KiB, and seal several times as fast as CURVE.

How both ends come to one is in cluster/mesh/meeting.py.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import numpy as np

from cluster.mesh.sealing import Keys, Secrets, why_broken
from kernels.addresses import address_of
from kernels.arrays import aligned
from kernels.kernel import Bound
from kernels.wire import frames
from kernels.wire import streams as kernels

_NOTHING = np.zeros(0, np.uint8)


class Bell:
    """Wakes a rank that sleeps when something has come by one of its streams."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_needed = np.zeros(1, np.int64)
        self.address = address_of(self._is_needed)

    def is_needed(self, is_needed: bool) -> None:
        """Records whether the rank sleeps."""
        kernels.set_bell(self.address, int(is_needed))

    def silence(self) -> None:
        """Takes back that it has rung."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        os.close(self.fd)


class Stream:
    """A stream over a connected socket, which it owns; sealed if there are keys."""

    def __init__(self, connection: socket.socket, bell: Bell, keys: Keys | None = None) -> None:
        connection.settimeout(None)
        self._socket = connection
        self._rings = [
            np.empty(kernels.N_SLOTS * kernels.SLOT_BYTES, np.uint8) for _ in range(2)
        ]  # of which the system gives what is touched
        self._words = words = aligned(kernels.STREAM_WORDS, np.int64)
        words[:] = 0
        self._secrets = Secrets(words, keys)
        words[frames.FD], words[kernels.ONE] = connection.fileno(), 1
        words[kernels.OUT], words[kernels.IN] = map(address_of, self._rings)
        words[kernels.EVENT_FD], words[kernels.ASLEEP_AT] = bell.fd, bell.address
        self.address = address_of(words)
        serves = (
            (kernels.serve_sending, "mesh-sends"), (kernels.serve_receiving, "mesh-receives"),
        )  # fmt: skip
        self._threads: list[threading.Thread] = []
        try:
            for serve, name in serves:
                bound = serve.bind(self.address)
                thread = threading.Thread(target=_run, args=(bound, self), name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise

    @property
    def why_broken(self) -> str:
        """Returns why the stream is of no use any more; "" while it is."""
        return why_broken(self._words)

    def write(self, message: bytes | bytearray | memoryview) -> bool:
        """Queues a message to be sent, which is copied; returns False where it has to go another
        way: it is too long, the queue is full, or the stream is broken."""
        return self.write_parts(np.frombuffer(message, np.uint8), _NOTHING)

    def write_parts(self, header: np.ndarray, payload: np.ndarray) -> bool:
        """Queues a message of two parts (n,) uint8, as `write` does."""
        parts = (address_of(header), len(header), address_of(payload), len(payload))
        return bool(kernels.queue(self.address, *parts))

    def take(self) -> bytes:
        """Returns the next message, b"" where none has come."""
        n_taken = int(self._words[kernels.N_TAKEN])
        if int(self._words[kernels.N_CAME]) == n_taken:
            return b""
        ring = self._rings[1]
        first = n_taken % kernels.N_SLOTS * kernels.SLOT_BYTES
        body = first + frames.LENGTH_BYTES
        n_body = int(ring[first:body].view("<i8")[0])
        n_bytes = n_body - int(self._words[frames.TAG_BYTES])
        message = ring[body : body + n_bytes].tobytes()
        kernels.free(self.address)
        return message

    def close(self) -> None:
        """Ends both threads, closes the connection and forgets its keys."""
        kernels.stop(self.address)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._secrets.clear()
        self._socket.close()


def _run(serve: Bound, stream: Stream) -> None:
    """Runs a thread of a stream, whose memory stays there for as long as it does."""
    serve()
