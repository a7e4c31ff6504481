"""Ways to workers, before and after they are greeted: names that lead nowhere, one worker under two
names, and what is wrong where nobody answers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

from cluster.sockets import Address
from cluster.wire.messages import Welcome
from dllama.errors import ConfigError

RESOLVE_AGAIN_S = 0.25
CONNECT_S = 1.0
GREETING_S = 0.5
GREETING_BYTES = 10  # a ZeroMQ peer begins with ff, 8 bytes of length and 7f, unasked
QUESTION = (
    b"\xff" + bytes(8) + b"\x7f\r\n\r\n"
)  # the same of ours: no offence to a worker that wakes
NO_WORKER = "what listens there is no dllama-worker"
CHECK_PORT = "check the port, which is the --port of dllama-worker and not that of a server"


def check_names(workers: Sequence[Address], timeout_s: float) -> None:
    """Raises ConfigError for a name that has no address within `timeout_s` (a container's name has
    one once it runs), and for two names of one address."""
    deadline = time.monotonic() + timeout_s
    names: dict[tuple[str, int], Address] = {}
    for worker in workers:
        target = (resolve(worker.host, deadline), worker.port)
        first = names.setdefault(target, worker)
        if first is not worker:
            raise one_worker_twice(first, worker)


def resolve(host: str, deadline: float) -> str:
    """Returns the IP address of a host, of IPv4 where it is a name. Raises ConfigError."""
    is_ipv6 = ":" in host
    while True:
        try:
            return _address(host, socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        except UnicodeError as error:  # a part of the name is empty, or longer than 63 characters
            raise ConfigError(f"{host!r} is no name of a machine ({error})") from None
        except OSError as error:
            other = None if is_ipv6 else _ipv6_address(host)
            if other is not None:
                raise ConfigError(
                    f"the worker {host!r} has an IPv6 address only; write [{other}] instead"
                ) from None
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the worker {host!r} has no address ({error.strerror or error}); check the "
                    "spelling in --workers, or write the machine's IP address"
                ) from None
        time.sleep(RESOLVE_AGAIN_S)


def _address(host: str, family: int) -> str:
    return str(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0][4][0])


def _ipv6_address(host: str) -> str | None:
    try:
        return _address(host, socket.AF_INET6)
    except OSError:
        return None


def check_distinct(workers: Sequence[Address], welcomes: Sequence[Welcome]) -> None:
    """Raises ConfigError where two of the daemons that answered are one, which any of a machine's
    addresses leads to."""
    names: dict[str, Address] = {}
    for worker, welcome in zip(workers, welcomes, strict=True):
        first = names.setdefault(welcome.daemon, worker)
        if first is not worker:
            raise one_worker_twice(first, worker)


def one_worker_twice(first: Address, second: Address) -> ConfigError:
    return ConfigError(
        f"{first} and {second} are two names of one worker; name each worker once in --workers"
    )


def why_silent(worker: Address) -> str:
    """Returns the likely reason why a worker does not answer, and what to do."""
    try:
        with socket.create_connection((worker.host, worker.port), CONNECT_S) as link:
            return _why_speechless(link)
    except ConnectionRefusedError:
        own = " (this machine itself computes without being named)" * _is_own(worker.host)
        return f"nothing listens on that port; start `dllama-worker` there, or check the port{own}"
    except TimeoutError:
        return "that machine does not react; check its address and the firewalls on the way"
    except OSError as error:
        return f"there is no way to that machine ({error.strerror or error}); check its address"


def _why_speechless(link: socket.socket) -> str:
    link.settimeout(GREETING_S)
    said = _heard(link)
    if (
        said is None
    ):  # servers of other protocols wait to be asked, and answer what they cannot read
        with contextlib.suppress(OSError):
            link.sendall(QUESTION)
        said = _heard(link)
    if said is None:
        return (
            "that port takes connections and nobody answers. If it is a dllama-worker's, its "
            "process is stopped (SIGSTOP), hangs or has no file descriptors left: look at it, and "
            "start it anew; else check the port"
        )
    if len(said) == GREETING_BYTES and said[0] == 0xFF and said[-1] == 0x7F:
        return "its dllama-worker listens but says nothing; see whether it hangs, and start it anew"
    if not said:
        return f"{NO_WORKER}, or one without file descriptors left: it hangs up; {CHECK_PORT}"
    return f"{NO_WORKER}{' but an HTTP server' * said.startswith(b'HTTP/')}; {CHECK_PORT}"


def _heard(link: socket.socket) -> bytes | None:
    """Returns the first bytes that a peer says; none where it closes, None where it says nothing in
    time."""
    try:
        return link.recv(GREETING_BYTES)
    except TimeoutError:
        return None
    except OSError:
        return b""


def _is_own(host: str) -> bool:
    """True where a host is this machine: nobody can bind the address of another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
