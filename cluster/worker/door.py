"""A port at which roots knock: its front, and the ZeroMQ socket behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import zmq

from cluster.front.front import Front
from cluster.front.private import PrivateEndpoint
from cluster.security.keys import KeyPair
from cluster.security.links import DAEMON, LinkSecurity
from cluster.security.peer import Peer
from cluster.sockets import Context, Socket, make_socket


class Door:
    """One port of a daemon, encrypted where it has a pair of keys.

    `numbers` gives connections their numbers, which doors share so that none has two.
    """

    def __init__(
        self,
        context: Context,
        max_message_bytes: int,
        numbers: Iterator[int],
        pair: KeyPair | None = None,
    ) -> None:
        self._inner = PrivateEndpoint()
        self._security = None if pair is None else LinkSecurity(context, pair)
        self.socket: Socket = make_socket(
            context, zmq.ROUTER, host="", max_message_bytes=max_message_bytes
        )
        self.front = Front(
            self._inner.target, max_message_bytes, numbers=numbers, is_sealed=pair is not None
        )

    def open(self, host: str, ports: Iterable[int]) -> int:
        """Listens on the first free port and returns it. Raises ConfigError."""
        if self._security is not None:
            self._security.start()
            self._security.listen(self.socket, DAEMON)
        self._inner.bind(self.socket)
        return self.front.start(host, ports)

    def admit_by(self, may_enter: Callable[[str], bool]) -> None:
        """Asks `may_enter` about each key, in a thread of its own. Until then, roots wait."""
        assert self._security is not None, "a plain door admits everybody"
        self._security.gate.set_policy(DAEMON, may_enter)

    def receive(self) -> tuple[Peer, list[bytes]]:
        """Returns the next message and who sent it. Raises zmq.Again where there is none."""
        identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        connection = self.front.number_of(identity.get(zmq.SRCFD))
        self.front.consumed(connection)
        key = str(identity.get("User-Id")) if self._security is not None else ""
        peer = Peer(identity.bytes, connection, self.front.address_of(connection), key)
        return peer, [frame.bytes for frame in frames]

    def close(self) -> None:
        self.front.close()
        self.socket.close()
        if self._security is not None:
            self._security.close()
        self._inner.close()
