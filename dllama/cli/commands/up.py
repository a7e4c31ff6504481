"""dllama up: a whole cluster on this machine, for a first look: workers, root and a chat."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from dllama.cli.chat_client import ChatClient
from dllama.cli.flags.arguments import (
    add_model_flag,
    default_threads,
    port_number,
    positive,
)
from dllama.cli.flags.cluster import cluster_key
from dllama.cli.terminal.output import count_of, loading, note
from dllama.errors import ClusterError
from dllama.host.child_python import child_command, child_environment
from dllama.host.temporary import temporary_folder

START_S = 600.0  # a first start compiles kernels
STOP_S = 8.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "up", help=summary,
        description="Start local workers and a root, print the URL and open a chat; all of it "
        "ends together. Other flags go to dllama-root.",
    )  # fmt: skip
    add_model_flag(parser)
    parser.add_argument("--n-workers", type=positive, default=2, metavar="N")
    parser.add_argument("--port", type=port_number, default=8080, help="of the API (default: 8080)")
    parser.add_argument(
        "--cluster-key", metavar="KEY|@FILE", type=cluster_key,
        help="only nodes with this key are spoken to (default: $DLLAMA_CLUSTER_KEY)",
    )  # fmt: skip
    parser.add_argument("--no-chat", action="store_true", help="serve until Ctrl-C")
    parser.set_defaults(run=run)


def free_port() -> int:
    """Returns a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """A process of this cluster, its output kept in a file, to be shown if it fails."""

    def __init__(self, name: str, folder: Path, *args: str, key: str | None) -> None:
        self.name, self._log = name, folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*child_command("dllama"), *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=_environment(key), start_new_session=True,
            )  # fmt: skip  # Ctrl-C in the chat must not end it

    def check(self) -> None:
        """Raises ClusterError with the last words of a process that has ended."""
        if self.process.poll() is not None:
            words = self._log.read_text(errors="replace").strip().splitlines()[-5:]
            raise ClusterError(f"{self.name} ended: " + " ".join(words or ["it said nothing"]))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _environment(key: str | None) -> dict[str, str]:
    """Returns a child's environment, with the cluster key: others can read a command line."""
    return child_environment() | ({"DLLAMA_CLUSTER_KEY": key} if key else {})


@contextlib.contextmanager
def local_cluster(
    model: str, n_workers: int, port: int, extra: list[str], key: str | None = None
) -> Iterator[tuple[str, list[Child]]]:
    """Runs workers and a root as children; yields the URL, once it serves, and the children."""
    threads = str(max(1, default_threads() // (n_workers + 1)))
    children: list[Child] = []
    with temporary_folder("dllama-up-") as name:
        folder = Path(name)
        try:
            addresses = []
            for i in range(1, n_workers + 1):
                addresses.append(f"127.0.0.1:{free_port()}")
                children.append(Child(
                    f"worker {i}", folder, "worker", "--host", "127.0.0.1",
                    "--port", addresses[-1].split(":")[1], "--threads", threads, key=key,
                ))  # fmt: skip
            children.append(Child(
                "the root", folder, "root", "--model", model, "--port",
                str(port), "--threads", threads, "--workers", ",".join(addresses),
                "--drain-timeout", "2", "--shares", "equal", *extra,
                key=key,
            ))  # fmt: skip
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, children)
            yield url, children
        finally:
            for child in reversed(children):
                child.stop()


def wait_until_ready(url: str, children: list[Child]) -> None:
    """Shows the progress of loading. Raises ClusterError where a process ends or time runs out."""
    until_s = time.monotonic() + START_S
    with loading("starting") as report:
        while time.monotonic() < until_s:
            for child in children:
                child.check()
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    return
            except urllib.error.HTTPError as error:
                state = _json(error.read())
                report(_share(state.get("progress")), str(state.get("detail") or ""))
            except OSError:
                pass
            time.sleep(0.2)
    raise ClusterError(f"the cluster did not start within {START_S:.0f} s")


def _json(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(args: argparse.Namespace) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):  # the children must end with us
        signal.signal(number, _leave)
    extra: list[str] = getattr(args, "rest", [])
    if name := getattr(args, "model_name", None):
        extra = ["--alias", name, *extra]
    port = args.port or free_port()
    key = args.cluster_key
    with local_cluster(args.model, args.n_workers, port, extra, key) as (url, children):
        workers = count_of(args.n_workers, "worker")
        note(f"{workers} and a root serve {args.model} at {url}/v1; in a browser: {url}/")
        if args.no_chat or not (sys.stdin.isatty() and sys.stdout.isatty()):
            print(url, flush=True)
            while True:
                for child in children:
                    child.check()
                time.sleep(0.5)
        from dllama.cli.talk.talking import talk

        client = ChatClient(url, os.environ.get("DLLAMA_API_KEY"), {})
        return talk(client, keeps_history=True)
