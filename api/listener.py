"""Where the server listens: a TCP port or a unix socket, in plain or with TLS; and the connections
that bring no request."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from dllama.errors import ConfigError

UNIX = "unix:"
SWEEP_S = 1.0


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


async def listen_all(
    runner: web.AppRunner, hosts: Sequence[str], port: int, tls: ssl.SSLContext | None
) -> list[web.BaseSite]:
    """Opens the port on every address, and the sockets among them; port 0 is one free port for all.
    Raises ConfigError with a sentence that says what to do."""
    sites: list[web.BaseSite] = []
    for host in hosts:
        sites.append(await listen(runner, host, port, tls))
        if port == 0 and unix_path(host) is None:
            port = runner.addresses[-1][1]
    return sites


async def listen(
    runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None
) -> web.BaseSite:
    """Opens the port or the socket. Raises ConfigError with a sentence that says what to do."""
    path = unix_path(host)
    if path is not None:
        return await listen_unix(runner, path, tls)
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    try:
        await site.start()
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
    return site


async def listen_unix(
    runner: web.AppRunner, path: Path, tls: ssl.SSLContext | None
) -> web.BaseSite:
    """Opens a unix socket; one that a dead server left behind is replaced."""
    if await asyncio.to_thread(is_left_behind, path):
        path.unlink(missing_ok=True)
    elif path.exists():
        raise ConfigError(
            f"The server cannot listen on {path}: something is there already, and it is in use or "
            "no socket; remove it or choose another --host."
        )
    site = web.UnixSite(runner, path, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"The server cannot listen on {path}: {error.strerror or error}; choose a path of at "
            "most 100 characters in a directory that this user may write."
        ) from error
    path.chmod(0o600)  # who may talk to the server is for its owner to widen
    return site


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


def shown_url(runner: web.AppRunner, host: str, tls: ssl.SSLContext | None) -> str:
    """Returns the URL of the server on this machine."""
    scheme = "http" if tls is None else "https"
    path = unix_path(host)
    if path is not None:
        return f"{scheme}+unix://{path}"
    return f"{scheme}://{display_host(host)}:{runner.addresses[0][1]}"


def display_host(host: str) -> str:
    """Returns the host as a URL has it; a wildcard becomes the address that works from here."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class SilentConnections:
    """Closes connections on which no request arrives for `header_timeout_s`: each holds a file
    handle. Between requests aiohttp's own keep-alive timeout does the same."""

    def __init__(self, header_timeout_s: float) -> None:
        self._header_timeout_s = header_timeout_s
        self._spoken: set[int] = set()
        self._since: dict[int, float] = {}

    def note(self, request: web.Request) -> None:
        """Records that a request has come over its connection."""
        self._spoken.add(id(request.protocol))

    def sweep(self, server: web.Server, now: float) -> int:
        """Closes connections that have been silent for too long, and returns how many."""
        connections = {id(connection): connection for connection in server.connections}
        self._spoken &= connections.keys()
        silent = connections.keys() - self._spoken
        self._since = {key: self._since.get(key, now) for key in silent}
        late = [key for key, since in self._since.items() if now - since > self._header_timeout_s]
        for key in late:
            connections[key].force_close()
        return len(late)

    async def watch(self, server: web.Server) -> None:
        """Sweeps until it is cancelled."""
        pause_s = min(SWEEP_S, self._header_timeout_s / 2)
        while True:
            await asyncio.sleep(pause_s)
            self.sweep(server, time.monotonic())
