"""One end of a line: a TCP connection to another rank for short messages, which the thread that
computes writes and reads itself (kernels/wire/lines.py). ZeroMQ's messages pass two threads on each
side, which costs a core that computes more than the wire.

How both ends come to one is in cluster/mesh/meeting.py.
"""

from __future__ import annotations

import socket

import numpy as np

from cluster.mesh.sealing import Keys, Secrets, why_broken
from kernels.addresses import address_of
from kernels.wire import frames
from kernels.wire import lines as kernels


class Line:
    """A line over a connected socket, which it owns; sealed if there are keys."""

    def __init__(self, connection: socket.socket, keys: Keys | None = None) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._out = np.zeros(kernels.FRAME_BYTES, np.uint8)
        self._in = np.zeros(kernels.IN_BYTES + 8, np.uint8)
        self._words = words = np.zeros(kernels.LINE_WORDS, np.int64)
        self._secrets = Secrets(words, keys)
        words[frames.FD] = connection.fileno()
        words[kernels.OUT], words[kernels.IN] = address_of(self._out), address_of(self._in)
        self.address = address_of(words)
        self._all = np.array([self.address], np.int64)

    @property
    def fd(self) -> int:
        return int(self._words[frames.FD])

    @property
    def is_sending(self) -> bool:
        """Returns whether the system has not taken all of the last message yet."""
        return bool(self._words[kernels.N_LEFT])

    @property
    def why_broken(self) -> str:
        """Returns why the line is of no use any more; "" while it is."""
        return why_broken(self._words)

    def write(self, message: bytes | bytearray | memoryview) -> bool:
        """Sends a message; returns False where it has to go another way: it is too long, the last
        one is still on its way, or the line is broken."""
        data = np.frombuffer(message, np.uint8)
        return bool(kernels.write_line(self.address, address_of(data), len(data)) > 0)

    def take(self) -> bytes:
        """Returns the next message, b"" where none has come."""
        if not self._words[kernels.N_READY]:
            kernels.read_lines(self._all)
        n_bytes, first = int(self._words[kernels.N_READY]), frames.LENGTH_BYTES
        if not n_bytes:
            return b""
        message = self._in[first : first + n_bytes].tobytes()
        kernels.free(self.address)
        return message

    def close(self) -> None:
        """Closes the connection, and forgets its keys."""
        self._words[frames.BROKEN] = frames.CLOSED
        self._secrets.clear()
        self._socket.close()
