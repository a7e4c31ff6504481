"""A busy-polling receiver for messages that are expected soon."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import zmq

from cluster.mesh.connections import Connections
from cluster.mesh.shared_ring import RingReader
from cluster.sockets import Socket
from kernels.kernel import Bound
from kernels.wire import rings as kernels
from kernels.wire.places import AWAY_NS, N_RESTS, RING_LOOKS, SPIN_NS

yield_core: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


class BusyPollReceiver:
    """Receives from one socket and any number of shared rings, lines and streams, polling first and
    blocking later.

    It backs off where other threads need the core: for the next messages it blocks at once.
    """

    def __init__(self, poll_ns: int = SPIN_NS) -> None:
        self._poll_ns = poll_ns
        self.n_resting = 0  # messages to block for before polling again
        self._rings: list[RingReader] = []
        self._waits: dict[int, Bound] = {}  # by the number of polls
        self.connections: Connections | None = None  # looked at too; their owner's

    def add(self, ring: RingReader) -> None:
        """Polls one more ring from now on, and closes it at the end."""
        self._rings.append(ring)
        addresses = np.array([r.address for r in self._rings], np.int64)
        self._waits = {
            n_looks: kernels.wait_any.bind(addresses, n_looks) for n_looks in (1, RING_LOOKS)
        }

    def receive(self, receiver: Socket) -> list[bytes]:
        """Returns the next message's frames. Raises zmq.Again after the socket's own timeout."""
        if self.n_resting:
            self.n_resting -= 1
            return self._sleep(receiver)
        now = time.perf_counter_ns()
        until = now + self._poll_ns
        while now < until:
            message = self.look(receiver)
            if message is not None:
                return message
            yield_core()
            before, now = now, time.perf_counter_ns()
            if now - before > AWAY_NS:
                self.n_resting = N_RESTS
                break
        return self._sleep(receiver)

    def look(self, receiver: Socket, n_looks: int = RING_LOOKS) -> list[bytes] | None:
        """Returns the frames of a message that has arrived, or None. n_looks is RING_LOOKS or 1."""
        message = self._look_at_rings(n_looks) or self._look_at_connections()
        if message is not None:
            return [message]
        try:
            return receiver.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        self.connections = None
        for ring in self._rings:
            ring.close()
        self._rings.clear()

    def _look_at_rings(self, n_looks: int) -> bytes | None:
        if not self._rings:
            return None
        i = self._waits[n_looks]()
        if i < 0:
            return None
        return self._rings[i].take()

    def _look_at_connections(self) -> bytes | None:
        return None if self.connections is None else self.connections.take()

    def _sleep(self, receiver: Socket) -> list[bytes]:
        for ring in self._rings:
            kernels.fall_asleep(ring.address, 1)
        try:
            message = self._look_at_rings(1)  # it may have come before the writer knew
            if message is not None:
                return [message]
            if self.connections is None:
                return sleep_for_message(receiver)
            message = self.connections.sleep(receiver)
            return receiver.recv_multipart(zmq.NOBLOCK) if message is None else [message]
        finally:
            for ring in self._rings:
                kernels.fall_asleep(ring.address, 0)


def sleep_for_message(receiver: Socket) -> list[bytes]:
    """Returns the next message's frames. Raises zmq.Again after the socket's own timeout."""
    return receiver.recv_multipart()
