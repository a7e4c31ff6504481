"""A cluster of real processes to be hurt: workers and a root, on loopback or each on a machine of
its own made of namespaces."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lan.wire import LinkRule
from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.chaos.namespaces import HOUSE, Network
from tests.chaos.programs import ENGINE, MARK, SESSION, Program, await_no_process
from tests.chaos.relay import Relay
from tests.chaos.unix_client import UnixClient
from tests.ports import own_worker_port

START_S = 240.0  # a first start compiles kernels
SETTLE_S = 15.0
WORKER_PORT = 9998
WEIGHTS_SENT = re.compile(r"(\d+) MB of weights sent")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a cluster is made of. `has_machines`: each node has namespaces of its own."""

    n_workers: int = 2
    has_machines: bool = False
    model: Path = DEFAULT_MODEL
    root_args: tuple[str, ...] = ()
    worker_args: tuple[str, ...] = ()


class Cluster:
    """The processes of a cluster and their folders; used as a context. What is left of them after
    the end is in `leftovers`."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings = settings
        self.leftovers: list[str] = []
        self.network: Network | None = None
        self._mark = secrets.token_hex(8)
        self._addresses: list[str] = []  # as the root is told them
        self.relays: list[Relay] = []  # before the daemons, where all is on loopback

    def __enter__(self) -> Cluster:
        self._folder = tempfile.TemporaryDirectory(prefix="dlx-")
        self.folder = Path(self._folder.name)
        self.socket = self.folder / "http.sock"
        n = self.settings.n_workers
        if self.settings.has_machines:
            self.network = Network(n + 1, self.folder, self._environment("network"))
        self.workers = [self._make_worker(number) for number in range(1, n + 1)]
        self.root = self._make_root()
        self.http = UnixClient(self.socket)
        try:
            for worker in self.workers:
                worker.start()
            self.root.start()
            self.await_whole(START_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what is hurt
    def sessions(self, number: int) -> list[int]:
        """Returns the pids of a worker's session processes."""
        return [each.pid for each in self.workers[number].children(SESSION)]

    def engine(self) -> int | None:
        """Returns the pid of the root's engine process; None where there is none."""
        found = self.root.children(ENGINE)
        return found[0].pid if found else None

    def cache_folder(self, number: int) -> Path:
        """Returns the folder where a worker keeps its weights."""
        return self.folder / self.workers[number].name / "weights"

    def address(self, number: int) -> str:
        """Returns a worker's address as the root was told it."""
        return self._addresses[number]

    def set_link(self, number: int, to_worker: LinkRule, from_worker: LinkRule) -> None:
        """Makes a worker's links good or bad: all of them on machines of their own, that between
        root and daemon on loopback."""
        if self.network is not None:
            self.network.set_links_of(number + 1, to_worker, from_worker)
        else:
            self.relays[number].set_rules(to_worker, from_worker)

    # ---- what it says of itself
    def is_ready(self) -> bool:
        return self.http.status("/health") == 200

    def world_size(self) -> int:
        """Returns how many nodes compute now; 0 where the engine does not say."""
        found = self.http.get("/stats").get("world_size", 0)
        return int(found) if isinstance(found, int) else 0

    def await_whole(self, within_s: float) -> None:
        """Waits until all nodes compute. Raises AssertionError."""
        deadline_s = time.monotonic() + within_s
        while not (self.is_ready() and self.world_size() == self.settings.n_workers + 1):
            assert not self.root.has_ended(), "the root ended: " + self.last_words()
            assert time.monotonic() < deadline_s, "the cluster is not whole: " + self.last_words()
            time.sleep(0.1)

    def weights_sent_mb(self) -> int:
        """Returns the megabytes of weights that the root says it has sent so far."""
        said = self.root.log.read_text(errors="replace")
        return sum(int(found) for found in WEIGHTS_SENT.findall(said))

    def last_words(self) -> str:
        """Returns the ends of all programs' logs."""
        return self.all_words(2500)

    def all_words(self, n_last: int = 0) -> str:
        """Returns all programs' logs, or n_last characters of each."""
        return "\n".join(
            f"--- {each.name}\n{each.log.read_text(errors='replace')[-n_last:]}"
            for each in (self.root, *self.workers)
            if each.log.exists()
        )

    # ---- the end
    def close(self) -> None:
        """Ends everything and looks for what is left."""
        told = []
        for program in (self.root, *self.workers):
            try:
                program.stop()
            except AssertionError as error:
                told.append(str(error))
        if self.network is not None:
            self.network.close()
        for relay in self.relays:
            relay.close()
        self.leftovers += told + await_no_process(self._mark, SETTLE_S)
        for each in sorted(self.folder.glob("*/tmp/*")):
            self.leftovers.append(f"file {each.relative_to(self.folder)}")
        if self.socket.exists():
            self.leftovers.append("the root's unix socket")
        self._folder.cleanup()

    # ---- how it is made
    def _environment(self, name: str) -> dict[str, str]:
        """Returns the environment of one node: its folders are its own, but compiled kernels."""
        own = self.folder / name
        (own / "tmp").mkdir(parents=True, exist_ok=True)
        kernels = os.environ.get("DLLAMA_CACHE") or Path.home() / ".cache" / "dllama"
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("XDG_")},
            "PYTHONPATH": str(HOUSE),
            "PYTHONFAULTHANDLER": "1",
            MARK: self._mark,
            "TMPDIR": str(own / "tmp"),
            "HOME": str(own),
            "DLLAMA_CACHE": str(kernels),
        }

    def _prefix(self, machine: int) -> list[str]:
        return self.network.machines[machine].prefix if self.network is not None else []

    def _make_worker(self, number: int) -> Program:
        """Worker 1 is on machine 1, and so on; the root is on the last one."""
        name = f"worker-{number}"
        environment = self._environment(name)
        cache = self.folder / name / "weights"
        cache.mkdir()
        if self.network is not None:
            machine = self.network.machines[number]
            machine.mount_small_disk(cache)
            host, port = machine.address, WORKER_PORT
        else:
            host, port = "127.0.0.1", own_worker_port()
            self.relays.append(Relay(port))
        told = port if self.network is not None else self.relays[-1].port
        self._addresses.append(f"{host}:{told}")
        command = [
            "worker", "--host", host, "--port", str(port), "--threads", "1",
            "--cache-dir", str(cache), *self.settings.worker_args,
        ]  # fmt: skip
        return Program(name, self.folder, command, environment, self._prefix(number))

    def _make_root(self) -> Program:
        command = [
            "root", "--model", str(self.settings.model), "--host", f"unix:{self.socket}",
            "--threads", "1", "--workers", ",".join(self._addresses), "--shares", "equal",
            "--log-level", "info", *self.settings.root_args,
        ]  # fmt: skip
        prefix = self._prefix(self.settings.n_workers + 1)
        return Program("root", self.folder, command, self._environment("root"), prefix)
