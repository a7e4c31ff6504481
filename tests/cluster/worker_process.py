"""A real worker daemon in a process of its own, started by tests and ended by its pid."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from cluster.security.cluster_key import parse_cluster_key
from cluster.security.settings import Security
from cluster.sockets import Address
from cluster.worker.daemon import Worker
from cluster.worker.worker_config import WorkerConfig

HOUSE = Path(__file__).parents[2]
NUMPY_SESSION = (sys.executable, "-m", "tests.cluster.numpy_session")


def listens(process: psutil.Process) -> bool:
    try:
        return any(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp"))
    except psutil.Error:  # it has ended meanwhile
        return False


class WorkerProcess:
    """A daemon of 127.0.0.1, on a port that the system gives. One that is to come back on its port
    needs an own_worker_port()."""

    def __init__(self, *, port: int = 0, **changes: object) -> None:
        config = {"port": port, "session_command": NUMPY_SESSION, **changes}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.worker_process", json.dumps(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=HOUSE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the daemon did not start: {self.process.communicate()[1]}"
        self.address = Address("127.0.0.1", int(line))
        self._output: list[str] = []
        self._reader = threading.Thread(target=self._read_output)
        self._reader.start()

    @property
    def output(self) -> str:
        """What the daemon and its sessions logged so far."""
        return "".join(self._output)

    def sessions(self) -> list[psutil.Process]:
        """The processes of sessions; not the one that is ready for the next."""
        return [p for p in psutil.Process(self.process.pid).children() if listens(p)]

    def kill_session(self, sig: signal.Signals) -> None:
        (session,) = self.sessions()
        session.send_signal(sig)

    def await_no_session(self, timeout_s: float = 40.0) -> None:
        """Waits until the daemon is back to waiting."""
        deadline = time.monotonic() + timeout_s
        while self.output.count("opened a session") > self.output.count("session of rank") + (
            self.output.count("ended an earlier session")
        ):
            assert time.monotonic() < deadline, f"a session is still there: {self.output}"
            time.sleep(0.02)

    def await_line(self, line: str, timeout_s: float = 20.0) -> None:
        """Waits until the daemon or a session logged it."""
        deadline = time.monotonic() + timeout_s
        while line not in self.output:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def end(self, sig: signal.Signals = signal.SIGINT) -> None:
        """Ends the daemon (which ends its sessions) and collects it."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.send_signal(sig)
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(10)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()

    def _read_output(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._output.append(line)


def security_from(cluster_key: str = "", home: str = "", **changes: bool) -> Security:
    """The Security of these words, as a test hands them to a daemon."""
    key = parse_cluster_key(cluster_key) if cluster_key else None
    return Security(cluster_key=key, home=Path(home) if home else None, **changes)


def main(options: str) -> None:
    logging.basicConfig(level=logging.INFO)
    changes = json.loads(options)
    changes["session_command"] = tuple(changes["session_command"])
    security = changes.pop("security", None)
    if security is not None:
        changes["security"] = security_from(**security)
    worker = Worker(WorkerConfig(**{"threads": 1, "host": "127.0.0.1", **changes}))
    signal.signal(signal.SIGTERM, lambda *_: worker.drain())
    signal.signal(signal.SIGINT, lambda *_: worker.stop())
    worker.start()
    print(worker.port, flush=True)
    try:
        worker.run()
    finally:
        worker.close()


if __name__ == "__main__":
    main(sys.argv[1])
