"""The machines of one link: what the other nodes run in the background, and the processes that
measure on the first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import Peer, multiplied_weights, weight_bytes
from benchmarks.lan.set_ups import (
    PORTS,
    Background,
    Programs,
    SetUp,
    Sizes,
    background_command,
    peer_command,
)
from benchmarks.namespaces import Lan, await_listening
from benchmarks.restart import Node
from dllama.config import ModelConfig
from dllama.formats import open_model
from dllama.sharding.units import reads_normed_quants

START_S = 120.0
SETTLE_S = 3.0  # a daemon makes another spare process two seconds after a session has loaded


@dataclass(frozen=True, slots=True)
class Model:
    """One model: the file that dllama and llama.cpp read, and distributed-llama's of the same
    shape, where there is one."""

    gguf: Path
    m_file: Path | None = None

    def config(self) -> ModelConfig:
        with closing(open_model(self.gguf)) as source:
            return source.config

    def normed_quants(self) -> bool:
        """Returns whether normed rows travel quantized."""
        with closing(open_model(self.gguf)) as source:
            return reads_normed_quants(source.config, source.tensors)

    def sizes(self) -> Sizes:
        config, weights = self.config(), multiplied_weights(self.gguf)
        return Sizes(
            config, weights["body"] // config.n_layers, weights["head"], weight_bytes(self.gguf)
        )


class Site:
    """Nodes on the machines of a Lan, each on its own cores."""

    def __init__(
        self, lan: Lan, folder: Path, cores: Sequence[Sequence[int]], programs: Programs
    ) -> None:
        self.lan, self.cores = lan, cores
        self._folder, self._programs = folder, programs
        self._stack = ExitStack()

    def start(self, kinds: Sequence[Background]) -> None:
        """Starts these programs on every machine but the first, and waits until they listen."""
        for i in range(1, len(self.cores)):
            own = self._machine_folder(i)
            for kind in kinds:
                address, n = self.lan.address(i), len(self.cores[i])
                words = background_command(kind, n, address, own, self._programs)
                command = self.lan.command(i, words, self.cores[i])
                node = Node(command, own, f"{kind}.log")
                self._stack.callback(node.end)
                await_listening(node.process.pid, PORTS[kind], START_S)

    @contextmanager
    def open(self, set_up: SetUp, model: Model, pages: int) -> Iterator[Peer]:
        """Yields the process that measures a set-up, loaded."""
        file = model.m_file if set_up.program == "distributed-llama" else model.gguf
        assert file is not None
        addresses = [self.lan.address(i) for i in range(1, len(self.cores))]
        words = peer_command(set_up, file, model.sizes(), addresses, self._programs)
        all_cores = [core for cores in self.cores for core in cores]
        home = f"DLLAMA_HOME={self._machine_folder(0)}"  # the others have theirs
        cores = self.cores[0] if set_up.nodes > 1 else all_cores[: set_up.cores]
        command = self.lan.command(0, ["env", home, *words], cores)
        with closing(Peer(set_up.name, command, pages)) as peer:
            if set_up.program == "dllama" and set_up.nodes > 1:
                time.sleep(SETTLE_S)
            yield peer

    def close(self) -> None:
        """Ends what was started."""
        self._stack.close()

    def _machine_folder(self, i: int) -> Path:
        own = self._folder / f"machine-{i}"
        own.mkdir(exist_ok=True)
        return own
