"""A session's link to its root: one ROUTER socket, which answers whoever first knew the epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import zmq

from cluster.mesh.receiver import BusyPollReceiver, sleep_for_message
from cluster.repeats import Repeats
from cluster.security.epoch_links import SessionLinks
from cluster.security.links import CONTROL
from cluster.sockets import (
    SLICE_MS,
    Address,
    Context,
    Socket,
    bind_first_free,
    make_socket,
    why_unreachable,
)
from cluster.wire.codec import epoch_of
from cluster.wire.messages import Message, pack, unpack
from dllama.errors import ClusterError, PeerLost, ProtocolError
from kernels.wire.places import SPIN_NS

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 << 20
WAY_TIMEOUT_S = 8.0  # for a connection to the root: three of its packets may be lost

M = TypeVar("M", bound=Message)


class RootLate(Exception):
    """The root has said nothing in time."""


class RootUnreachable(ClusterError):
    """The address that the root has named for its rank does not lead there from this worker."""


@contextmanager
def reaching(root: Address) -> Iterator[None]:
    """Runs the body, which joins the mesh. Raises RootUnreachable where the root's rank is not at
    the address that the root has told: at once, as the root listens before it tells, and where the
    body loses it. A root that gave up meanwhile hears nothing of it."""
    why = why_unreachable(root, WAY_TIMEOUT_S)
    if why:
        raise RootUnreachable(f"there is no way from this worker to {root} ({why})")
    try:
        yield
    except PeerLost as lost:
        if lost.rank == 0:
            raise RootUnreachable(
                f"what listens at {root} does not answer this worker as the root's rank does"
            ) from None
        raise


class RootLink:
    """Receives the root's messages and answers them.

    `idle` is called whenever nothing has come for a while; it may raise.
    """

    def __init__(
        self, context: Context, host: str, epoch: int, idle: Callable[[], None], *,
        polls: bool = True,
    ) -> None:  # fmt: skip
        self._epoch = epoch
        self._idle = idle
        self._host = host
        self._socket: Socket = make_socket(
            context, zmq.ROUTER, host=host, max_message_bytes=MAX_MESSAGE_BYTES
        )
        self._socket.setsockopt(zmq.LINGER, 1_000)  # a last message may leave
        self._root: bytes | None = None  # its identity, once it has spoken
        self._receiver = BusyPollReceiver(SPIN_NS if polls else 0)
        self._repeats = Repeats()
        self._idled_at = 0.0  # when strangers' messages last kept this rank from being idle

    def bind(self, ports: Iterable[int], security: SessionLinks | None = None) -> int:
        """Listens on the first free port and returns it; encrypted, where there is `security`.
        Raises ConfigError."""
        if security is not None:
            security.listen(self._socket, CONTROL)
        return bind_first_free(self._socket, self._host, ports)

    @property
    def has_root(self) -> bool:
        """Whether the root has spoken: nothing can be sent before."""
        return self._root is not None

    def expect(self, kind: type[M], is_late: Callable[[], bool] = lambda: False) -> M:
        """The root's next message, which has to be of one kind. Raises as `receive` does, and
        ProtocolError for a message of another kind."""
        message = self.receive(is_late)
        if not isinstance(message, kind):
            raise ProtocolError(
                f"the root sent {type(message).__name__} where {kind.__name__} was due"
            )
        return message

    def receive(self, is_late: Callable[[], bool] = lambda: False) -> Message:
        """The root's next message. Raises RootLate once `is_late`, ProtocolError where the root
        sends nonsense, and what `idle` raises."""
        receive = self._receiver.receive  # a running answer's next step is near; then, sleep
        while True:
            try:
                identity, *frames = receive(self._socket)
            except zmq.Again:
                receive = sleep_for_message
                self._idle()
                if is_late():
                    raise RootLate from None
                continue
            if identity == self._root or epoch_of(frames) == self._epoch:
                epoch, message = unpack(frames)
                if epoch == self._epoch:
                    self._root = self._root or identity
                    return message
            self._drop()
            if is_late():
                raise RootLate

    def _drop(self) -> None:
        """Counts a stranger's message, unread. However many come, `idle` is called in time."""
        now = time.monotonic()
        if self._repeats.is_first("a stranger", "a message to the session", now):
            log.warning("dropped a message that a stranger sent, who does not know the session")
        for line in self._repeats.due(now):
            log.warning("%s", line)
        if now - self._idled_at >= SLICE_MS / 1e3:
            self._idled_at = now
            self._idle()

    def send(self, message: Message) -> None:
        assert self._root is not None, "nothing is sent before the root has spoken"
        self._socket.send_multipart([self._root, *pack(message, self._epoch)])

    def close(self) -> None:
        self._socket.close()
