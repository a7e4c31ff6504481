"""A daemon's encrypted port: only the holders of keys that were admitted get in."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from cluster.security.keys import KeyPair
from cluster.security.links import DAEMON, LinkSecurity
from cluster.sockets import Context, Socket, bind_first_free, make_socket, session_ports


class EncryptedDoor:
    """One socket beside the daemon's plain one, on one of its session ports."""

    def __init__(self, context: Context, pair: KeyPair, host: str, max_message_bytes: int) -> None:
        self._host = host
        self._security = LinkSecurity(context, pair)
        self.socket: Socket = make_socket(
            context, zmq.ROUTER, host=host, max_message_bytes=max_message_bytes
        )

    def open(self, port: int) -> int:
        """Listens beside the daemon's `port` and returns its own. Raises ConfigError."""
        self._security.start()
        self._security.listen_encrypted(self.socket, DAEMON)
        return bind_first_free(self.socket, self._host, session_ports(port))

    def admit_by(self, may_enter: Callable[[str, str], bool]) -> None:
        """Asks `may_enter` about each key and address, in a thread of its own."""
        self._security.gate.set_policy(DAEMON, may_enter)

    def close(self) -> None:
        self.socket.close()
        self._security.close()
