"""A TCP proxy that keeps a copy of what passes, both ways: what somebody on the network sees."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterable
from typing import Self

CHUNK_BYTES = 1 << 16


class RecordingProxy:
    """Listens at `host` on the ports that are free there, and passes all on to the same ports of
    `target`. Bytes are sent on at once, blocking: this is for loopback only."""

    def __init__(self, host: str, target: str, ports: Iterable[int]) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._streams: list[bytearray] = []
        self.ports: list[int] = []
        for port in ports:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError:
                listener.close()
                continue
            listener.listen()
            self._sockets.append(listener)
            self.ports.append(port)
            self._selector.register(listener, selectors.EVENT_READ, port)
        self._is_running = True
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_running = False
        self._thread.join()
        for each in self._sockets:
            each.close()
        self._selector.close()

    @property
    def streams(self) -> list[bytes]:
        """What was said so far, a stream for each direction of each connection; of the first
        connection, the client's words first."""
        return [bytes(stream) for stream in self._streams]

    def has_seen(self, piece: bytes) -> bool:
        return any(piece in stream for stream in self._streams)

    def _run(self) -> None:
        while self._is_running:
            for key, _ in self._selector.select(0.05):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if isinstance(key.data, int):
                    self._accept(end, key.data)
                else:
                    self._pass(end, *key.data)

    def _accept(self, listener: socket.socket, port: int) -> None:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((self._target, port), 5)
        except OSError:
            near.close()
            return
        for end, other in ((near, far), (far, near)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = bytearray()
            self._streams.append(stream)
            self._sockets.append(end)
            self._selector.register(end, selectors.EVENT_READ, (other, stream))

    def _pass(self, end: socket.socket, other: socket.socket, stream: bytearray) -> None:
        try:
            data = end.recv(CHUNK_BYTES)
            stream += data
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._selector.unregister(end)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
