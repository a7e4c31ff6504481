"""A rank's own connections to all others: the lines and streams of one session."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zmq

from cluster.mesh.line import Line
from cluster.mesh.meeting import Met
from cluster.mesh.stream import Bell, Stream
from cluster.sockets import SLICE_MS, Socket
from kernels.wire import lines, streams

Message = bytes | bytearray | memoryview


class Connections:
    """The lines and streams over connected sockets, by rank; they own them."""

    def __init__(self, met: Mapping[int, Met], bell: Bell) -> None:
        self._bell = bell
        self._lines: dict[int, Line] = {}
        self._streams: dict[int, Stream] = {}
        left = dict(met)
        try:
            for rank, ((for_line, for_stream), keys) in met.items():
                self._lines[rank] = Line(for_line, keys[0])
                self._streams[rank] = Stream(for_stream, bell, keys[1])
                del left[rank]
        except BaseException:
            for each in left.values():
                each.close()
            self.close()
            raise
        both = [(lines.read_lines, self._lines), (streams.find, self._streams)]
        self._find_line, self._find_stream = (
            kernel.bind(np.array([x.address for x in of.values()], np.int64))  # type: ignore[attr-defined]
            for kernel, of in both
        )
        self._all_lines, self._all_streams = [*self._lines.values()], [*self._streams.values()]

    def address_of_line(self, rank: int) -> int:
        """Returns the address of the line to a rank; 0 where there is none."""
        return self._lines[rank].address if rank in self._lines else 0

    def write(self, rank: int, message: Message, *, is_long: bool) -> bool:
        """Sends a message by the stream if it `is_long`, else by the line; returns whether that
        took it."""
        if rank not in self._lines:
            return False
        way = self._streams[rank] if is_long else self._lines[rank]
        return way.write(message)

    def write_parts(self, rank: int, header: np.ndarray, payload: np.ndarray) -> bool:
        """Sends a long message of two parts (n,) uint8; returns whether it was taken."""
        return rank in self._streams and self._streams[rank].write_parts(header, payload)

    def take(self) -> bytes | None:
        """Returns the next message that has come, None where there is none."""
        if (i := self._find_line()) >= 0 and (message := self._all_lines[i].take()):
            return message
        return self._all_streams[i].take() or None if (i := self._find_stream()) >= 0 else None

    def sleep(self, inbox: Socket) -> bytes | None:
        """Waits until something comes by a connection or by ZeroMQ, but SLICE_MS at most; returns
        a message that has come by a connection."""
        self._bell.is_needed(True)
        try:
            message = self.take()  # it may have come before the threads knew
            if message is None:
                waiting = [
                    (line.fd, zmq.POLLIN | (zmq.POLLOUT if line.is_sending else 0))
                    for line in self._all_lines
                ]
                zmq.zmq_poll([(inbox, zmq.POLLIN), (self._bell.fd, zmq.POLLIN), *waiting], SLICE_MS)
                self._bell.silence()
                message = self.take()
        finally:
            self._bell.is_needed(False)
        return message

    def broken(self) -> tuple[int, str] | None:
        """Returns a rank whose connection is broken and why; None while all hold."""
        for rank, line in self._lines.items():
            why = line.why_broken or self._streams[rank].why_broken
            if why:
                return rank, why
        return None

    def close(self) -> None:
        """Closes all of them, and the bell."""
        for line in self._lines.values():
            line.close()
        for stream in self._streams.values():
            stream.close()
        self._bell.close()
