"""The real programs as processes that can be hurt: each is found by its pid, on this machine's own
process list, also where it runs on a machine made of namespaces."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

ENGINE = "dllama.cli.server.engine"
SESSION = "dllama.cli.worker_session"
STOP_S = 45.0  # a drain may take 30 s
MARK = "DLLAMA_CHAOS"  # in the environment of every process of a run


class Program:
    """A dllama command that can be started again after its end. Its words go to a file."""

    def __init__(
        self, name: str, folder: Path, command: list[str], environment: dict[str, str],
        prefix: list[str],
    ) -> None:  # fmt: skip
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [*prefix, sys.executable, "-m", "dllama", *command]
        self._is_prefixed = bool(prefix)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the program; nothing happens where it runs already."""
        if not self.has_ended():
            return
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=self._environment,
            )  # fmt: skip

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def main(self) -> psutil.Process | None:
        """Returns the program's own process; None where it is not there."""
        if self._process is None or self.has_ended():
            return None
        with suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            if not self._is_prefixed:
                return own
            inside = own.children()  # nsenter waits for it
            return inside[0] if inside else None
        return None

    def children(self, module: str) -> list[psutil.Process]:
        """Returns the processes below it that run a module of ours."""
        main, found = self.main(), []
        for each in main.children(recursive=True) if main is not None else []:
            with suppress(psutil.Error):
                if module in each.cmdline():
                    found.append(each)
        return found

    def everything(self) -> list[psutil.Process]:
        """Returns the program's process and all below it."""
        main = self.main()
        with suppress(psutil.Error):
            return [main, *main.children(recursive=True)] if main is not None else []
        return []

    def send(self, sig: signal.Signals) -> None:
        """Sends a signal to the program's own process."""
        main = self.main()
        if main is not None:
            with suppress(psutil.Error):
                main.send_signal(sig)

    def freeze(self) -> None:
        """Stops the program's process and all below it, as a machine that stands still."""
        for each in self.everything():
            with suppress(psutil.Error):
                each.suspend()

    def thaw(self) -> None:
        """Lets them go on; nsenter too, which stops itself with its child."""
        for each in self.everything():
            with suppress(psutil.Error):
                each.resume()
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills the program's own process, not those below it, and waits for its end."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)

    def wait(self, timeout_s: float = STOP_S) -> int | None:
        """Returns the exit code once the program has ended; None where it has not in time."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ends it as a user would, twice (a worker that drains ends at the second); kills what does
        not end."""
        self.thaw()
        if self._process is None:
            return
        for patience_s in (5.0, 15.0):
            self.send(signal.SIGTERM)
            if self.wait(patience_s) is not None:
                return
        for each in self.everything():
            with suppress(psutil.Error):
                each.kill()
        self._process.kill()
        self._process.wait()
        raise AssertionError(f"{self.name} did not end by itself: {self.log.read_text()[-2000:]}")


def marked_processes(mark: str) -> list[psutil.Process]:
    """Returns all processes of a run that are there, whoever their parent is now."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            is_there = each.status() != psutil.STATUS_ZOMBIE
            if is_there and each.environ().get(MARK) == mark:
                found.append(each)
    return found


def await_no_process(mark: str, within_s: float) -> list[str]:
    """Returns the command lines of the run's processes that are still there after a while."""
    deadline_s = time.monotonic() + within_s
    while (left := marked_processes(mark)) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    described = []
    for each in left:
        with suppress(psutil.Error):
            described.append(f"process {each.pid}: {' '.join(each.cmdline())}")
            each.kill()
    return described
