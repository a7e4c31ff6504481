"""One connection through the front: two sockets, and the bytes that are on their way between them.

Reads no more than it can pass on: what a peer sends too fast waits in its own machine.
"""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from dataclasses import dataclass

from cluster.front.budget import Budget
from cluster.front.frame_meter import FrameMeter

CHUNK_BYTES = 4096  # read from a peer at once
MAX_UNREAD = 4  # messages that wait to be read from the socket behind
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class PeerLeft(Exception):
    """One end has closed the connection."""


@dataclass(slots=True, eq=False)
class Connection:
    """`outer` leads to the peer, `inner` to our own ZeroMQ socket. Both do not block."""

    number: int
    address: str
    outer: socket.socket
    inner: socket.socket
    meter: FrameMeter
    budget: Budget
    came_at: float
    is_sealed: bool = False  # encrypted: a ping cannot be told from a message
    served_at: float = 0.0
    resume_at: float = 0.0  # nothing is passed inwards before
    inwards: bytes = b""  # read and not passed on yet
    n_offences: int = 0
    n_consumed: int = 0  # messages that were read from the socket behind
    n_allowed: int = 0  # bytes of `inwards` that are measured and may pass
    outwards: bytes = b""

    @property
    def may_pass_in(self) -> bool:
        """Whether the socket behind has room: it is never allowed to be full. libzmq 4.3.5 ends the
        process where a peer leaves while its messages wait for room and a ping is due. Who is let
        in to a sealed port is slowed down by its budget alone: more than a daemon reads."""
        if self.is_sealed:
            return True
        return bool(self.n_allowed) or self.meter.n_messages - self.n_consumed < MAX_UNREAD

    def events(self, now: float) -> dict[socket.socket, int]:
        """Returns what has to happen on each socket for this connection to go on."""
        may_pass = now >= self.resume_at and self.may_pass_in
        outer = (WRITE if self.outwards else 0) | (READ if may_pass and not self.inwards else 0)
        inner = (0 if self.outwards else READ) | (WRITE if may_pass and self.inwards else 0)
        return {self.outer: outer, self.inner: inner}

    def pass_out(self) -> None:
        """Passes on what our socket says. Raises PeerLeft."""
        if not self.outwards:
            self.outwards = _read(self.inner)
        self.outwards = self.outwards[_write(self.outer, self.outwards) :]

    def pass_in(self, max_units: int) -> int:
        """Passes on what the peer says, up to `max_units` messages, and returns how many ended.
        Raises PeerLeft, and ProtocolError where the bytes are none that may pass."""
        if not self.inwards:
            self.inwards = _read(self.outer)
        before = self.meter.n_units
        if not self.n_allowed:
            self.n_allowed = self.meter.take(self.inwards, max_units)
        sent = _write(self.inner, self.inwards[: self.n_allowed])
        self.inwards, self.n_allowed = self.inwards[sent:], self.n_allowed - sent
        return self.meter.n_units - before

    def close(self) -> None:
        for end in (self.outer, self.inner):
            with suppress(OSError):
                end.close()


def _read(end: socket.socket) -> bytes:
    try:
        data = end.recv(CHUNK_BYTES)
    except (BlockingIOError, InterruptedError):
        return b""
    except OSError:
        raise PeerLeft from None
    if not data:
        raise PeerLeft
    return data


def _write(end: socket.socket, data: bytes) -> int:
    try:
        return end.send(data) if data else 0
    except (BlockingIOError, InterruptedError):
        return 0
    except OSError:
        raise PeerLeft from None
