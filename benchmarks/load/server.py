"""Real servers for load tests, each a process on loopback that ends with its `with` block."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.compare import ROOT

START_S = 180.0  # for a large model to be loaded
STOP_S = 20.0
TOLD_CHARS = 2_000  # of what a server that did not start has said


class LoadError(Exception):
    """The load test cannot go on; a full sentence says why."""


@dataclass(frozen=True, slots=True)
class Room:
    """The room that a server is started with: sequences at once, tokens of one, and of all
    together."""

    threads: int
    sequences: int
    context: int
    kv_tokens: int


def root_command(
    model: str, room: Room, port: int, workers: Sequence[str], more: Sequence[str] = ()
) -> list[str]:
    """dllama-root as users start it, with room for everything that is sent."""
    command = [
        sys.executable, "-m", "dllama.cli.commands.root", "--model", model,
        "--threads", str(room.threads), "--host", "127.0.0.1", "--port", str(port),
        "--max-batch", str(room.sequences), "--ctx-size", str(room.context),
        "--kv-tokens", str(room.kv_tokens), "--drain-timeout", "1", *more,
    ]  # fmt: skip
    return [*command, "--workers", ",".join(workers), "--shares", "equal"] if workers else command


def llama_server_command(binary: str, model: str, room: Room, port: int) -> list[str]:
    """llama-server with the same threads; -kvu lets a slot have more than its share of -c."""
    return [
        binary, "-m", model, "-t", str(room.threads), "-tb", str(room.threads),
        "-np", str(room.sequences), "-c", str(room.kv_tokens), "-kvu",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip


@contextmanager
def serving(name: str, command: Sequence[str], port: int) -> Iterator[str]:
    """The URL of a server that is ready. Raises LoadError where it does not become so."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            if not _becomes_ready(process, url):
                said.seek(0)
                code = process.poll()
                why = f"within {START_S:g} s" if code is None else f"but ended with code {code}"
                raise LoadError(
                    f"{name} did not become ready {why}; it was started as {' '.join(command)!r} "
                    f"and said: {said.read()[-TOLD_CHARS:].strip()!r}"
                )
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5.0) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            pass  # not listening yet, or a 503 while it loads
        time.sleep(0.1)
    return False
