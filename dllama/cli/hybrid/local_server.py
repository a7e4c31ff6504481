"""A server on this machine as children of this process: a root, and workers for it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dllama.cli.flags.arguments import default_threads
from dllama.cli.hybrid.child import Child
from dllama.cli.server_address import MAX_ANSWER_BYTES, ServerAddress
from dllama.cli.terminal.output import loading
from dllama.cli.trust import Untrusted
from dllama.errors import ClusterError
from dllama.host.temporary import temporary_folder

START_S = 600.0  # a first start compiles kernels
LOOK_S = 0.1
ASK_S = 2.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """What is started: `words` are flags of dllama-root, and `environment` holds what nobody may
    read on a command line. `splits_threads`: the root and the workers share the cores."""

    address: ServerAddress
    words: Sequence[str]
    n_workers: int = 0
    splits_threads: bool = True
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@contextlib.contextmanager
def running(server: LocalServer) -> Iterator[list[Child]]:
    """Runs a server; yields its processes, the root last, once it serves. Raises ClusterError where
    one of them ends before that."""
    children: list[Child] = []
    threads = ("--threads", str(max(1, default_threads() // (server.n_workers + 1))))
    own_threads = threads if server.splits_threads and server.n_workers else ()
    with temporary_folder("dllama-logs-") as name:
        folder = Path(name)
        try:
            addresses = []
            for i in range(1, server.n_workers + 1):
                port = str(free_port())
                addresses.append(f"127.0.0.1:{port}")
                children.append(Child(
                    f"worker {i}", folder, "worker", "--host", "127.0.0.1", "--port", port,
                    *threads, environment=server.environment,
                ))  # fmt: skip
            workers = ("--workers", ",".join(addresses)) if addresses else ()
            children.append(Child(
                "the root", folder, "root", *own_threads, *workers, *server.words,
                environment=server.environment,
            ))  # fmt: skip
            wait_until_ready(server.address, children)
            yield children
        finally:
            for child in reversed(children):
                child.stop()


def free_port() -> int:
    """Returns a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: ServerAddress, children: Sequence[Child]) -> None:
    """Shows the progress of loading. Raises ClusterError where a process ends, time runs out, or
    another server answers."""
    until_s = time.monotonic() + START_S
    with loading("starting") as report:
        while time.monotonic() < until_s:
            for child in children:
                child.check()
            try:
                with server.request("GET", "/health", None, ASK_S) as answer:
                    if answer.status == 200:
                        return
                    state = _json(answer.read(MAX_ANSWER_BYTES))
                report(_share(state.get("progress")), str(state.get("detail") or ""))
            except Untrusted:  # whoever answers, it is not the server that was started
                raise
            except ClusterError:
                pass
            time.sleep(LOOK_S)
    raise ClusterError(f"the server did not start within {START_S:.0f} s")


def _json(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
