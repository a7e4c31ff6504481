"""The encryption of the sockets of one process: its key pair, and who may connect to it."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from cluster.security.gate import Gate
from cluster.security.keys import KeyPair
from cluster.sockets import Context, Socket

CONTROL = "control"  # the domain of a session's socket for its root
MESH = "mesh"  # the domain of a rank's inbox
STORE = "store"  # the domain of a rank's socket for the pieces on its disk
DAEMON = "daemon"  # the domain of a daemon's encrypted port


def connect_encrypted(socket: Socket, pair: KeyPair, server_key: str) -> None:
    """Makes a socket that is not connected yet speak, as the holder of `pair`, to the holder of a
    key only."""
    socket.setsockopt_string(zmq.CURVE_SERVERKEY, server_key)
    socket.setsockopt_string(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, pair.secret)


class LinkSecurity:
    """Encrypts sockets of one context with CURVE, all by one key pair."""

    def __init__(self, context: Context, pair: KeyPair) -> None:
        self._pair = pair
        self.gate = Gate(context)

    @property
    def public_key(self) -> str:
        return self._pair.public

    def start(self) -> None:
        self.gate.start()

    def listen(self, socket: Socket, domain: str) -> None:
        """Makes a socket that is not bound yet take clients of a domain, which `admit` names."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gate nobody gets in

    def admit(self, domain: str, keys: Iterable[str]) -> None:
        """Lets the holders of these keys in and nobody else. Until then, clients wait."""
        known = frozenset(keys)
        self.gate.set_policy(domain, lambda key: key in known)

    def connect(self, socket: Socket, server_key: str) -> None:
        """Makes a socket that is not connected yet speak to the holder of a key only."""
        connect_encrypted(socket, self._pair, server_key)

    def close(self) -> None:
        self.gate.close()
