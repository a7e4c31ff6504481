"""Plain listening sockets, with the sentences of a port that cannot be had."""

from __future__ import annotations

import errno
import socket

from dllama.errors import ConfigError

BACKLOG = 128  # connections that wait to be let in


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address of this machine. Raises ConfigError."""
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
            raise ConfigError(
                f"port {port} is in use or not allowed on {host}; choose another with --port"
            ) from None
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror or error}; use an address of this machine, "
            "or 0.0.0.0 for all of them"
        ) from None
    return made
