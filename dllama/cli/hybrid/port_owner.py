"""Who listens at the address that a server is to have."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dllama.cli.server_address import ServerAddress
from dllama.cli.talk.server_models import rows_of
from dllama.errors import DllamaError

LOOK_S = 5.0
MAX_PORTS = 10  # that are tried after the first


@dataclass(frozen=True, slots=True)
class Owner:
    """A server that is there already; `models` are those of a dllama, None of another program."""

    models: Sequence[Mapping[str, Any]] | None

    def names(self) -> list[str]:
        """Returns what requests may call its models."""
        found: list[str] = []
        for row in self.models or ():
            found += [str(row.get("id")), *map(str, row.get("aliases") or ())]
        return found


def owner_of(server: ServerAddress, host: str, port: int) -> Owner | None:
    """Returns who listens at the port of a server, None where nobody does. Raises DllamaError where
    a dllama is there and refuses."""
    if not is_taken(host, port):
        return None
    try:
        told = server.ask("GET", "/", None, LOOK_S)
    except DllamaError:
        return Owner(None)
    return Owner(rows_of(server) if "dllama" in str(told.get("server")) else None)


def is_taken(host: str, port: int) -> bool:
    """Returns whether somebody listens at a port."""
    try:
        with socket.create_connection((host, port), LOOK_S):
            return True
    except OSError:
        return False


def free_after(host: str, port: int) -> int | None:
    """Returns the next port at which nobody listens, None where there is none near."""
    for other in range(port + 1, min(port + 1 + MAX_PORTS, 65536)):
        if not is_taken(host, other):
            return other
    return None
