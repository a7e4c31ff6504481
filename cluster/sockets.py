"""Addresses, ports and the options that every ZeroMQ socket between nodes is made with."""

from __future__ import annotations

import errno
import ipaddress
import socket
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from dllama.errors import ClusterError, ConfigError

DEFAULT_PORT = 9998
SESSION_PORTS = 64  # a session listens on three of the ports port + 1 .. port + 64
HEARTBEAT_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 2_500  # with the interval, a dead link is known after 3.5 s at the latest
HANDSHAKE_MS = 10_000  # strangers who say nothing are cut off: each holds a file descriptor
IPV4_IN_IPV6 = "::ffff:"  # before the IPv4 address of a peer, on a socket that takes both
SLICE_MS = 250  # timeout of a blocking call, after which peers and watchdogs are checked

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


_HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + ".-_")
_IPV6_CHARACTERS = frozenset(string.hexdigits + ":.%" + string.ascii_letters)  # %: the interface


@dataclass(frozen=True, slots=True)
class Address:
    """The address at which a worker daemon listens."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parses `host`, `host:port`, `[ipv6]:port` or `[ipv6]`. Raises ConfigError."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, colon, port = text, "", ""
    elif not colon:
        host, port = text, ""
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host.strip("[]")
    allowed = _IPV6_CHARACTERS if is_bracketed else _HOST_CHARACTERS
    is_host = host[:1].isalnum() or (is_bracketed and host[:1] == ":")  # as ZeroMQ has it
    if not is_host or not allowed.issuperset(host) or (colon and not port.isdigit()):
        raise ConfigError(
            f"{text!r} is no worker address; expected host or host:port, with an IPv6 address in "
            "brackets: [::1]:9998"
        )
    number = int(port) if colon else DEFAULT_PORT
    if not 0 < number < 1 << 16:
        raise ConfigError(f"{text!r} has the port {number}; expected 1 to 65535")
    return Address(host, number)


def parse_addresses(text: str) -> list[Address]:
    """Parses a comma-separated list of distinct worker addresses. Raises ConfigError."""
    addresses = [parse_address(part) for part in text.split(",") if part.strip()]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ConfigError(f"the worker {address} is named twice; name each worker once")
    return addresses


def endpoint(host: str, port: int) -> str:
    """Returns the ZeroMQ endpoint of a TCP address."""
    return f"tcp://{Address(host, port)}"


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine itself, by a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix(IPV4_IN_IPV6)).is_loopback
    except ValueError:
        return False


def address_towards(host: str, port: int) -> str:
    """Returns this machine's address on the route to a host, where that host can reach it.

    Raises ClusterError.
    """
    try:
        # Names are IPv4 here as they are to make_socket: only a written IPv6 address is one.
        wanted = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.getaddrinfo(host, port, wanted, socket.SOCK_DGRAM)
        family, _, _, _, target = found[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting UDP sends nothing
            probe.connect(target)
            name: str = probe.getsockname()[0]
            return name
    except OSError as error:
        raise ClusterError(
            f"there is no way from here to {host}: {error}. Check the worker's address and the "
            "network"
        ) from None


def why_unreachable(address: Address, timeout_s: float) -> str:
    """Returns why no connection to an address can be made; "" where one was, and was closed."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET  # as in address_towards
    try:
        found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(timeout_s)
            probe.connect(found[0][4])
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def make_socket(context: Context, kind: int, *, host: str, max_message_bytes: int) -> Socket:
    """Returns a socket with explicit limits: nothing is queued for an absent peer, and closing does
    not wait. Both ends of a link send heartbeats, so that a frozen peer is noticed.

    What is received has no high-water mark: libzmq 4.3.5 ends the process (an assertion in
    stream_engine_base.cpp) where a peer cuts its link while its messages wait for room and a
    heartbeat is due. Who may send is decided before: by a front, or by the link's handshake.
    """
    made = context.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.IMMEDIATE, 1)
    made.setsockopt(zmq.SNDHWM, 1_000)
    made.setsockopt(zmq.RCVHWM, 0)
    made.setsockopt(zmq.MAXMSGSIZE, max_message_bytes)
    made.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    made.setsockopt(zmq.SNDTIMEO, SLICE_MS)
    made.setsockopt(zmq.RCVTIMEO, SLICE_MS)
    made.setsockopt(zmq.IPV6, int(":" in host))
    return made


def bind_first_free(bound: Socket, host: str, ports: Iterable[int]) -> int:
    """Binds to the first port of `ports` that is free (0: any) and returns it.

    Raises ConfigError where all are in use or the host is not ours.
    """
    tried = [port for port in ports if 0 <= port < 1 << 16]
    for port in tried:
        try:
            bound.bind(endpoint(host, port))
            return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EADDRINUSE, errno.EACCES):
                raise ConfigError(
                    f"cannot listen on {host}: {error}; use an address of this machine, or "
                    "0.0.0.0 for all of them"
                ) from None
    span = f"port {tried[0]} is" if len(tried) == 1 else f"none of {len(tried)} ports is"
    state = "in use or not allowed" if len(tried) == 1 else "free"
    listed = "" if len(tried) < 2 else f" ({min(tried)} to {max(tried)})"
    raise ConfigError(f"{span} {state} on {host}{listed}; choose another with --port")


def session_ports(port: int) -> range:
    """Returns the ports of a session, the highest first, so that daemons on neighbouring ports
    (several on one machine) do not collide with them."""
    return range(port + SESSION_PORTS, port, -1)


class DisconnectWatch:
    """Reports whether a connecting socket has lost its peer."""

    def __init__(self, watched: Socket) -> None:
        self._watched = watched
        self._events: Any = watched.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._is_lost = False

    def is_lost(self) -> bool:
        while not self._is_lost and self._events.poll(0):
            event = recv_monitor_message(self._events, zmq.NOBLOCK)
            self._is_lost = event["event"] == zmq.EVENT_DISCONNECTED
        return self._is_lost

    def close(self) -> None:
        self._watched.disable_monitor()
        self._events.close()
