"""Short questions to a server that listens on a unix socket."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, socket

TIMEOUT_S = 10.0


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnixClient:
    """Asks, a connection each time; a server that is not there answers with status 0."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """Returns the status and the body, which has to be a JSON object."""
        connection = _UnixConnection(self._path)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = json.loads(answer.read() or b"{}")
            return answer.status, found if isinstance(found, dict) else {"": found}
        except (OSError, HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, object]:
        return self.ask("GET", path)[1]

    def status(self, path: str) -> int:
        return self.ask("GET", path)[0]
