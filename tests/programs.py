"""The real programs as child processes, for end-to-end tests: daemons, a root, HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import own_port, own_worker_port

START_S = 120.0  # a first start compiles kernels
STOP_S = 20.0


class Program:
    """A dllama command in a process; its words go to a file."""

    def __init__(self, log: Path, *args: str) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dllama", *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_worker(folder: Path, port: int) -> Program:
    return Program(
        folder / f"worker-{port}.log", "worker", "--host", "127.0.0.1",
        "--port", str(port), "--threads", "1",
    )  # fmt: skip


@contextmanager
def workers(folder: Path, n: int) -> Iterator[list[str]]:
    """n daemons; their addresses."""
    ports = [own_worker_port() for _ in range(n)]
    programs = [start_worker(folder, port) for port in ports]
    try:
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for program in programs:
            program.stop()


class Server:
    """A running dllama-root."""

    def __init__(self, program: Program, url: str) -> None:
        self.program, self.url = program, url

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.url + path, data, headers))

    def _ask(self, request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def wait_until_ready(self, within_s: float = START_S) -> None:
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            assert self.program.process.poll() is None, self.program.log.read_text()[-2000:]
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError("the root is not ready: " + self.program.log.read_text()[-2000:])


@contextmanager
def root(folder: Path, model: Path | str, *args: str, prefix: str = "") -> Iterator[Server]:
    """A root that serves `model`, once it is ready; `prefix` is before its routes."""
    with server(folder, "--model", str(model), *args, prefix=prefix) as found:
        yield found


@contextmanager
def server(folder: Path, *args: str, prefix: str = "") -> Iterator[Server]:
    """A root with these flags, once it is ready; `prefix` is before its routes."""
    port = own_port()
    program = Program(
        folder / f"root-{port}.log", "root", "--port", str(port), "--threads", "1", *args
    )
    try:
        found = Server(program, f"http://127.0.0.1:{port}{prefix}")
        found.wait_until_ready()
        yield found
    finally:
        program.stop()
