"""Admits to the plain sockets of a session whoever knows its epoch, as ZeroMQ's PLAIN password.

Without it, strangers' messages would be taken in before anybody reads them; the handshake keeps
them out. It hides nothing: the epoch travels in every message of a plain link.
"""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from cluster.security.gate import Gate
from cluster.security.links import LinkSecurity
from cluster.sockets import Context, Socket

USER = "dllama"  # ZeroMQ takes no empty name


def connect_plain(socket: Socket, epoch: int) -> None:
    """Makes a socket that is not connected yet tell the epoch of its session."""
    socket.setsockopt_string(zmq.PLAIN_USERNAME, USER)
    socket.setsockopt_string(zmq.PLAIN_PASSWORD, f"{epoch:x}")


class EpochLinks:
    """What LinkSecurity is for encrypted links, for the plain links of one epoch."""

    public_key = ""

    def __init__(self, context: Context, epoch: int) -> None:
        self._epoch = epoch
        self._gate = Gate(context)

    def start(self) -> None:
        self._gate.start()

    def listen(self, socket: Socket, domain: str) -> None:
        """Makes a socket that is not bound yet take clients of a domain that know the epoch."""
        socket.setsockopt(zmq.PLAIN_SERVER, 1)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gate nobody gets in

    def admit(self, domain: str, keys: Iterable[str]) -> None:
        """Lets in who knows the epoch; `keys` are none."""
        password = f"{self._epoch:x}"
        self._gate.set_policy(domain, lambda told: told == password)

    def connect(self, socket: Socket, server_key: str) -> None:
        """Makes a socket that is not connected yet tell the epoch."""
        connect_plain(socket, self._epoch)

    def close(self) -> None:
        self._gate.close()


SessionLinks = LinkSecurity | EpochLinks
"""How the links of a session know who is at their other end."""
