"""The process that carries packets between machines (benchmarks/lan/packets.py), as seen by whoever
makes the machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from benchmarks.ending import wait_or_kill
from benchmarks.lan import packets
from benchmarks.lan.wire import LinkRule

ROOT = Path(__file__).resolve().parents[2]
CLOSE_S = 20.0


class Carrier:
    """A running process that carries packets between network namespaces, which are given by their
    numbers and files. Each gets a device `packets.DEVICE`."""

    def __init__(self, namespaces: Mapping[int, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", packets.__name__, *(f"{k}={v}" for k, v in namespaces.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            self._answer()  # the devices are there
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def set_way(self, sender: int, receiver: int, rule: LinkRule) -> None:
        """Makes one way of a link good or bad."""
        self._ask({"from": sender, "to": receiver, "rule": asdict(rule)})

    def carried_bytes(self) -> int:
        """Returns the bytes of all packets that arrived so far."""
        return self._ask({})["carried_bytes"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        wait_or_kill(self._process, CLOSE_S)
        self._process.stdout.close()

    def _ask(self, command: dict[str, object]) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._answer())
        return found

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError("the process that carries packets has ended; its own words are above")
        return line
