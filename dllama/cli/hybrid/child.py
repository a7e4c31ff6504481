"""A process of a server that was started together with a chat."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dllama.errors import ClusterError
from dllama.host.child_python import child_command, child_environment

STOP_S = 8.0
LAST_LINES = 5


class Child:
    """Runs a command, with its output in a file, from which its last words are told if it fails. It
    hears no Ctrl-C of the terminal, and ends when this process does."""

    def __init__(
        self, name: str, folder: Path, *words: str, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, folder / f"{name.replace(' ', '-')}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*child_command("dllama.cli.leashed"), *words], stdin=subprocess.PIPE, stdout=log,
                stderr=log, env=child_environment() | dict(environment), start_new_session=True,
            )  # fmt: skip

    def check(self) -> None:
        """Raises ClusterError with the last words of a process that has ended."""
        if self.process.poll() is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
            raise ClusterError(f"{self.name} ended: " + " ".join(words or ["it said nothing"]))

    def stop(self) -> None:
        """Ends the process; kills it if it does not end by itself."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdin is not None, "it was opened as a pipe"
        with contextlib.suppress(OSError):
            self.process.stdin.close()
