"""ZeroMQ sockets that only this machine's processes of the same user reach: no ports."""

from __future__ import annotations

import os
import secrets
import sys

import zmq

from cluster.sockets import Socket
from dllama.host.leftovers import HeldFolder
from dllama.host.temporary import socket_folder

IS_ABSTRACT = sys.platform.startswith("linux")  # names without files: nothing is left behind


class PrivateEndpoint:
    """A unix socket's name, as ZeroMQ's endpoint and as the `target` of a Front."""

    def __init__(self) -> None:
        self._folder: HeldFolder | None = None
        if IS_ABSTRACT:
            self.target = f"@dllama-{secrets.token_hex(16)}"
        else:
            self._folder = socket_folder("dllama-", "s")
            self.target = f"{self._folder.name}/s"

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.target}"

    def bind(self, bound: Socket) -> None:
        """Binds a socket; other users' processes are refused. A folder keeps them out by itself."""
        if IS_ABSTRACT:
            bound.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        bound.bind(self.endpoint)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
