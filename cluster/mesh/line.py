"""One end of a line: a plain TCP connection to another rank for short messages, which compiled code
writes and reads itself (kernels/wire/lines.py). ZeroMQ's messages pass two threads on each side,
which costs a core that computes more than the wire.

How both ends come to one is in cluster/mesh/line_making.py.
"""

from __future__ import annotations

import os
import socket

import numpy as np

from cluster.mesh.libraries import Sealing
from kernels.addresses import address_of
from kernels.wire import lines as kernels

BUFFER_BYTES = 1 << 20  # of the system, each way; it gives what it allows
_WHY = {
    kernels.CLOSED: "it was closed",
    kernels.FORGED: "what came on it was changed on the way",
    kernels.TOO_LONG: "what came on it is no message of a rank",
}


class LineKeys:
    """What seals and opens the frames of a line: 32 bytes for each direction."""

    def __init__(self, sealing: Sealing, to_seal: bytes, to_open: bytes) -> None:
        self.sealing, self.to_seal, self.to_open = sealing, to_seal, to_open


class Line:
    """A line over a connected socket, which it owns; sealed if there are keys."""

    def __init__(self, connection: socket.socket, keys: LineKeys | None = None) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, which, BUFFER_BYTES)
        self._socket = connection
        self._out = np.zeros(kernels.FRAME_BYTES, np.uint8)
        self._in = np.zeros(kernels.IN_BYTES + 8, np.uint8)
        self._words = words = np.zeros(kernels.LINE_WORDS, np.int64)
        self._secrets: list[np.ndarray] = []  # kept alive
        words[kernels.FD] = connection.fileno()
        words[kernels.OUT], words[kernels.IN] = address_of(self._out), address_of(self._in)
        if keys is not None:
            self._use(keys)
        self.address = address_of(words)
        self._all = np.array([self.address], np.int64)

    @property
    def fd(self) -> int:
        return int(self._words[kernels.FD])

    @property
    def is_sending(self) -> bool:
        """Returns whether the system has not taken all of the last message yet."""
        return bool(self._words[kernels.N_LEFT])

    @property
    def why_broken(self) -> str:
        """Returns why the line is of no use any more; "" while it is."""
        number = int(self._words[kernels.BROKEN])
        return _WHY.get(number) or (os.strerror(number) if number else "")

    def write(self, message: bytes | bytearray | memoryview) -> bool:
        """Sends a message; returns False where it has to go another way: it is too long, the last
        one is still on its way, or the line is broken."""
        data = np.frombuffer(message, np.uint8)
        return bool(kernels.write_line(self.address, address_of(data), len(data)) > 0)

    def take(self) -> bytes:
        """Returns the next message, b"" where none has come."""
        if kernels.read_lines(self._all) < 0:
            return b""
        n_bytes, first = int(self._words[kernels.N_READY]), kernels.LENGTH_BYTES
        if not n_bytes:  # it is broken
            return b""
        message = self._in[first : first + n_bytes].tobytes()
        kernels.free(self.address)
        return message

    def close(self) -> None:
        """Closes the connection, and forgets its keys."""
        for each in self._secrets:
            each[:] = 0
        self._words[kernels.BROKEN] = kernels.CLOSED
        self._socket.close()

    def _use(self, keys: LineKeys) -> None:
        sealing, words = keys.sealing, self._words
        nonces = [np.zeros(sealing.cipher.nonce_bytes, np.uint8) for _ in range(2)]
        secrets = [np.frombuffer(bytearray(key), np.uint8) for key in (keys.to_seal, keys.to_open)]
        self._secrets = [*secrets, *nonces]
        words[kernels.SEAL], words[kernels.OPEN] = sealing.seal, sealing.open
        words[kernels.TAG_BYTES] = sealing.cipher.tag_bytes
        places = (kernels.SEAL_KEY, kernels.OPEN_KEY, kernels.SEAL_NONCE, kernels.OPEN_NONCE)
        for place, array in zip(places, self._secrets, strict=True):
            words[place] = address_of(array)
