"""Plain listening sockets, with the sentences of a port that cannot be had."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from dllama.errors import ConfigError

BACKLOG = 128  # connections that wait to be let in


def listen(host: str, ports: Iterable[int]) -> socket.socket:
    """Returns a socket that listens on the first free port of this machine. Raises ConfigError."""
    tried = list(ports)
    for port in tried:
        made = _listen(host, port)
        if made is not None:
            return made
    which = f"port {tried[0]} is" if len(tried) == 1 else f"all ports {tried[-1]} to {tried[0]} are"
    raise ConfigError(f"{which} in use or not allowed on {host}; choose another with --port")


def _listen(host: str, port: int) -> socket.socket | None:
    """Returns a listening socket, or None where the port is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror or error}; use an address of this machine, "
            "or 0.0.0.0 for all of them"
        ) from None
    return made
