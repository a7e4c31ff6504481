"""Times to come up and to come back, between machines on rated links.

    python -m benchmarks.restart MODEL.gguf [--workers 2] [--rate-mbit 1000] [--json FILE]

One machine alone; a cluster's first start, which sends the weights; its second, which finds them on
the workers' disks; and how long an answer stands still when a worker dies for good, without and
with --rejoin-s. Machines are network namespaces (root needed), with encrypted links.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ending import wait_or_kill
from benchmarks.namespaces import Lan, lan_of, why_no_namespaces
from kernels.cache import cache_root

PORT, HTTP = 9998, 8080
CLONE_NEWNET = 0x40000000  # linux/sched.h
READY_S = 300.0
POLL_S = 0.02  # each question takes the server's processor, which is the cluster's too here
SETTLE_S = 5.0
END_S = 60.0
FILL_S = 300.0  # for the workers to be sent what a loss would need
N_BEFORE_LOSS = 20  # tokens of an answer
N_AFTER_LOSS = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table."""

    what: str
    seconds: float
    sent_bytes: int | None = None  # by the root, headers included


class Node:
    """One process on one machine, ended with the context, and killed where it does not end."""

    def __init__(self, command: Sequence[str], folder: Path, log: str) -> None:
        environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "DLLAMA_CACHE": str(cache_root()),  # of kernels: warm ones
        }
        self._log = (folder / log).open("wb")
        self.process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment
        )

    def end(self, kind: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(kind)
        wait_or_kill(self.process, END_S)
        self._log.close()


def program(name: str, *args: str) -> list[str]:
    return [sys.executable, "-m", f"dllama.cli.commands.{name}", *args]


@contextmanager
def worker(lan: Lan, i: int, folder: Path) -> Iterator[Node]:
    own = folder / f"machine-{i}"
    own.mkdir(exist_ok=True)
    command = program("worker", "--port", str(PORT), "--cache-dir", str(own / "weights"))
    node = Node(lan.command(i, command), own, "worker.log")
    try:
        yield node
    finally:
        node.end()


@contextmanager
def root(lan: Lan, folder: Path, model: Path, n_workers: int, *args: str) -> Iterator[float]:
    """Yields the seconds until the server said that it was ready."""
    own = folder / "machine-0"
    own.mkdir(exist_ok=True)
    names = ",".join(f"{lan.address(i)}:{PORT}" for i in range(1, n_workers + 1))
    cluster = ["--workers", names, "--shares", "equal"] if n_workers else []
    command = program("root", "--model", str(model), "--port", str(HTTP), *cluster, *args)
    began = time.monotonic()
    node = Node(lan.command(0, command), own, "root.log")
    try:
        while not is_ready():
            if node.process.poll() is not None or time.monotonic() - began > READY_S:
                raise SystemExit(f"the root did not come up: {(own / 'root.log').read_text()}")
            time.sleep(POLL_S)
        yield time.monotonic() - began
    finally:
        node.end()


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def await_readiness_for_loss() -> None:
    """Waits until the workers have on their disks what they need after a loss, and the process of
    the next session: a loss within the first seconds takes longer."""
    deadline = time.monotonic() + FILL_S
    while not is_filled():
        if time.monotonic() > deadline:
            raise SystemExit(f"the workers have not all spare weights after {FILL_S:g} s")
        time.sleep(0.5)
    time.sleep(SETTLE_S)


def is_filled() -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/stats", timeout=10) as answer:
        workers = json.load(answer).get("workers", [])[1:]  # none where the engine is busy
    return bool(workers) and all(row["weights"]["has_spares"] for row in workers)


def longest_gap(lost: Node) -> tuple[float, float]:
    """Streams an answer and kills a worker in it; returns the longest pause between two tokens
    and the usual one, in seconds."""
    body = {"prompt": "hello", "max_tokens": N_BEFORE_LOSS + N_AFTER_LOSS, "stream": True,
            "temperature": 0, "ignore_eos": True}  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{HTTP}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    times = []
    with urllib.request.urlopen(request, timeout=READY_S) as stream:
        for line in stream:
            if line.startswith(b"data: {") and b'"error"' in line[:12]:
                raise SystemExit(f"the answer ended: {line.decode()}")
            if line.startswith(b"data: {"):
                times.append(time.monotonic())
                if len(times) == N_BEFORE_LOSS:
                    lost.process.kill()
    pauses = [b - a for a, b in pairwise(times)]
    return max(pauses), statistics.median(pauses)


def measure(model: Path, n_workers: int, rate_mbit: float, tell: Console) -> list[Measured]:
    found: list[Measured] = []

    def note(what: str, seconds: float, sent: int | None = None) -> None:
        found.append(Measured(what, seconds, sent))
        tell.print(f"{what}: {seconds:.2f} s" + (f", {sent:,} bytes" if sent is not None else ""))

    with lan_of(n_workers + 1, rate_mbit) as lan, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enter_namespace(lan.names[0])
        for _ in range(3):
            with root(lan, folder, model, 0) as seconds:
                pass
        note("one machine alone", seconds)
        with ExitStack() as stack:
            for i in range(1, n_workers + 1):
                stack.enter_context(worker(lan, i, folder))
            for what in ("first start", "second start", "third start"):
                before = lan.sent_bytes(0)
                with root(lan, folder, model, n_workers) as seconds:
                    note(what, seconds, lan.sent_bytes(0) - before)
                    await_readiness_for_loss()
        for rejoin_s in ("0", "3"):
            with ExitStack() as stack:
                nodes = [
                    stack.enter_context(worker(lan, i, folder)) for i in range(1, n_workers + 1)
                ]
                with root(lan, folder, model, n_workers, "--rejoin-s", rejoin_s):
                    await_readiness_for_loss()
                    before = lan.sent_bytes(0)
                    gap, usual = longest_gap(nodes[-1])
                    sent = lan.sent_bytes(0) - before
                    note(f"pause of an answer, kill -9 of a worker, --rejoin-s {rejoin_s}", gap,
                         sent)  # fmt: skip
        note("pause between two tokens otherwise", usual)
    return found


def enter_namespace(name: str) -> None:
    """Moves this process to a network namespace, so that it can ask the root there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "the namespace cannot be entered")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate-mbit", type=float, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if (reason := why_no_namespaces()) is not None:
        raise SystemExit(f"{reason}; start this as root on Linux")
    found = measure(args.model.resolve(), args.workers, args.rate_mbit, Console(stderr=True))
    table = Table("what", "seconds", "bytes sent by the root")
    for line in found:
        sent = "" if line.sent_bytes is None else f"{line.sent_bytes:,}"
        table.add_row(line.what, f"{line.seconds:.2f}", sent)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps([asdict(line) for line in found], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
