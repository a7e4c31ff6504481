"""Where the server listens: a TCP port or a unix socket, in plain or with TLS; and the connections
that bring no request."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from api.http.acceptor import BACKLOG, listening
from dllama.errors import ConfigError

UNIX = "unix:"
SWEEP_S = 1.0
MIN_IDLE_S = 1.0  # a request may be on its way


def unix_path(host: str) -> Path | None:
    """Returns the path of a unix socket that `host` names ("unix:/run/d.sock", or any path that
    ends in .sock), None for an address."""
    if host.startswith(UNIX):
        return Path(host.removeprefix(UNIX))
    return Path(host) if host.endswith(".sock") else None


def tls_context(cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext | None:
    """Returns the TLS context, None without files. Raises ConfigError if they cannot be used."""
    if cert_file is None and key_file is None:
        return None
    if cert_file is None or key_file is None:
        raise ConfigError(
            "TLS needs both --ssl-cert-file and --ssl-key-file; only one of them was given."
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # an SSLError is one too
        raise ConfigError(
            f"The certificate {cert_file} and the key {key_file} cannot be used "
            f"({error.strerror or error}); give a PEM certificate and its unencrypted PEM key."
        ) from error
    return context


async def listen_all(server: web.Server, hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Opens the port on every address, and the sockets among them, and returns what listens; port 0
    is one free port for all. Raises ConfigError with a sentence that says what to do."""
    opened: list[socket.socket] = []
    try:
        for host in hosts:
            opened += await listen(server, host, port)
            if port == 0 and unix_path(host) is None:
                port = opened[-1].getsockname()[1]
    except ConfigError:
        for one in opened:
            one.close()
        raise
    return opened


async def listen(server: web.Server, host: str, port: int) -> list[socket.socket]:
    """Opens the port or the socket and returns what listens there. Raises ConfigError with a
    sentence that says what to do."""
    path = unix_path(host)
    if path is not None:
        return await listen_unix(server, path)
    loop = asyncio.get_running_loop()
    try:
        bound = await loop.create_server(server, host, port, start_serving=False)
        try:
            return listening(bound)
        finally:
            bound.close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there; stop it or choose another --port"
        elif error.errno == errno.EACCES:
            reason = "this user may not open it; choose a --port above 1023"
        else:
            reason = f"{error.strerror or error}; check --host and --port"
        raise ConfigError(f"The server cannot listen on {host} port {port}: {reason}.") from error
    except OverflowError as error:
        raise ConfigError(f"The port {port} does not exist; choose one up to 65535.") from error


async def listen_unix(server: web.Server, path: Path) -> list[socket.socket]:
    """Opens a unix socket; one that a dead server left behind is replaced."""
    if await asyncio.to_thread(is_left_behind, path):
        path.unlink(missing_ok=True)
    elif path.exists():
        raise ConfigError(
            f"The server cannot listen on {path}: something is there already, and it is in use or "
            "no socket; remove it or choose another --host."
        )
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise ConfigError(
            f"The server cannot listen on {path}: {error.strerror or error}; choose a path of at "
            "most 100 characters in a directory that this user may write."
        ) from error
    made.setblocking(False)
    path.chmod(0o600)  # who may talk to the server is for its owner to widen
    return [made]


def is_left_behind(path: Path) -> bool:
    """True if there is a socket on which no process listens."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def shown_url(listeners: Sequence[socket.socket], host: str, tls: ssl.SSLContext | None) -> str:
    """Returns the URL of the server on this machine."""
    scheme = "http" if tls is None else "https"
    path = unix_path(host)
    if path is not None:
        return f"{scheme}+unix://{path}"
    return f"{scheme}://{display_host(host)}:{listeners[0].getsockname()[1]}"


def display_host(host: str) -> str:
    """Returns the host as a URL has it; a wildcard becomes the address that works from here."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class SilentConnections:
    """Closes connections on which no request arrives for `header_timeout_s`: each holds a file
    descriptor. Between requests aiohttp's own keep-alive timeout does the same, and `make_room`
    where descriptors are needed sooner."""

    def __init__(self, header_timeout_s: float) -> None:
        self._header_timeout_s = header_timeout_s
        self._spoken: set[int] = set()
        self._at_work: set[int] = set()
        self._since: dict[int, float] = {}  # when one was first seen idle

    @contextmanager
    def request_on(self, request: web.Request) -> Iterator[None]:
        """Records that a request has come over its connection, and is being answered meanwhile."""
        key = id(request.protocol)
        self._spoken.add(key)
        self._at_work.add(key)
        self._since.pop(key, None)
        try:
            yield
        finally:
            self._at_work.discard(key)

    def sweep(self, server: web.Server, now: float) -> int:
        """Closes connections that have been silent for too long, and returns how many."""
        spoken = self._spoken
        return self._close_idle(server, now, self._header_timeout_s, lambda key: key in spoken)

    def make_room(self, server: web.Server, now: float) -> int:
        """Closes connections without a request at work, also those that had one before, and returns
        how many."""
        return self._close_idle(server, now, MIN_IDLE_S, lambda key: False)

    def _close_idle(
        self, server: web.Server, now: float, idle_s: float, is_kept: Callable[[int], bool]
    ) -> int:
        connections = {id(connection): connection for connection in server.connections}
        self._spoken &= connections.keys()
        idle = connections.keys() - self._at_work
        self._since = {key: self._since.get(key, now) for key in idle}
        late = [
            key for key, since in self._since.items() if now - since > idle_s and not is_kept(key)
        ]
        for key in late:
            connections[key].force_close()
        return len(late)

    async def watch(self, server: web.Server) -> None:
        """Sweeps until it is cancelled."""
        pause_s = min(SWEEP_S, self._header_timeout_s / 2)
        while True:
            await asyncio.sleep(pause_s)
            self.sweep(server, time.monotonic())
