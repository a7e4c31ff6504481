"""Measures a ZMTP 3 byte stream without copying it: where its units end, and whether any of them is
larger than allowed. Knows no sockets.

ZeroMQ itself bounds one frame (MAXMSGSIZE) and the number of messages (RCVHWM), but not the frames
of one message: a peer that never sends the last one fills the memory. RFC 23 and 37 have the bytes.
"""

from __future__ import annotations

from dllama.errors import ProtocolError

GREETING_BYTES = 64
MAX_PARTS = 17  # a head and 16 arrays, see cluster/wire/codec.py
_SIGNATURE = {0: 0xFF, 9: 0x7F}
_MAJOR_AT, _MAJOR = 10, 3
_MORE, _LONG, _COMMAND = 1, 2, 4


class FrameMeter:
    """Follows one direction of one connection.

    A unit is a message of any number of frames, or a command. `n_units` counts the whole ones,
    `n_messages` those that are messages.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.n_units = self.n_messages = 0
        self._max_message_bytes = max_message_bytes
        self._n_greeting = 0
        self._header = bytearray()
        self._left = 0  # bytes of the current frame's body that are still to come
        self._n_parts = self._n_bytes = 0  # of the message so far
        self._ends_unit, self._is_command = True, False

    @property
    def has_greeted(self) -> bool:
        """Whether the greeting and the first command, the handshake's, have passed."""
        return self.n_units > 0

    def take(self, data: bytes | memoryview, max_units: int) -> int:
        """Follows the stream up to the end of its next `max_units` units, and returns how many
        bytes of `data` that are. Raises ProtocolError for what no peer of ours sends."""
        at, last = 0, self.n_units + max_units
        while at < len(data) and self.n_units < last:
            if self._n_greeting < GREETING_BYTES:
                self._greet(data[at])
                at += 1
            elif self._left:
                n = min(self._left, len(data) - at)
                self._left -= n
                at += n
                self._end_frame()
            else:
                self._header.append(data[at])
                at += 1
                self._read_header()
        return at

    def _greet(self, byte: int) -> None:
        at = self._n_greeting
        if byte != _SIGNATURE.get(at, byte) or (at == _MAJOR_AT and byte < _MAJOR):
            raise ProtocolError("it does not speak ZMTP 3")
        self._n_greeting += 1

    def _read_header(self) -> None:
        flags = self._header[0]
        if flags > _COMMAND + _LONG + _MORE or flags & (_COMMAND + _MORE) == _COMMAND + _MORE:
            raise ProtocolError(f"a frame has the flags {flags:#04x}, which ZMTP does not know")
        if len(self._header) < (9 if flags & _LONG else 2):
            return
        self._left = int.from_bytes(self._header[1:])
        self._header.clear()
        self._n_parts += 1
        self._n_bytes += self._left
        if self._n_bytes > self._max_message_bytes or self._n_parts > MAX_PARTS:
            raise ProtocolError(
                f"a message has {self._n_parts} frames and {self._n_bytes} bytes or more, and at "
                f"most {MAX_PARTS} frames and {self._max_message_bytes} bytes are allowed"
            )
        self._ends_unit, self._is_command = not flags & _MORE, bool(flags & _COMMAND)
        self._end_frame()

    def _end_frame(self) -> None:
        if not self._left and self._ends_unit:
            self.n_units += 1
            self.n_messages += not self._is_command
            self._n_parts = self._n_bytes = 0
