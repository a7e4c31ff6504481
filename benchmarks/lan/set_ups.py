"""What is measured in turn on one link: dllama on one node and on several, and other programs.
Names and commands alone; starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.lan.exchanges import PORT, n_exchanges, row_bytes
from benchmarks.peers.with_llama_rpc import remote_layers
from dllama.config import ModelConfig

Program = Literal["dllama", "distributed-llama", "llama.cpp", "plain TCP"]
Background = Literal["encrypted", "plain", "distributed-llama", "llama.cpp", "plain TCP"]
PORTS: dict[Background, int] = {
    "encrypted": 9_998, "plain": 10_098, "distributed-llama": 9_990, "llama.cpp": 50_052,
    "plain TCP": PORT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """The links of all machines."""

    rate_mbit: float
    delay_ms: float = 0.0

    @property
    def name(self) -> str:
        rate = self.rate_mbit
        told = f"{rate / 1000:g} Gbit/s" if rate >= 1000 else f"{rate:g} Mbit/s"
        return f"{told}, {self.delay_ms:g} ms one way" if self.delay_ms else told


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that are not dllama's; None is left out."""

    distributed_llama: Path | None = None
    batched_bench: Path | None = None
    rpc_server: Path | None = None
    raw_tcp: Path | None = None  # of the floor


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a model's commands depend on."""

    config: ModelConfig
    layer_weights: int
    head_weights: int
    weight_bytes: int  # that a decoded token reads


@dataclass(frozen=True, slots=True)
class SetUp:
    """A program on some nodes, with some cores each."""

    program: Program
    nodes: int
    cores: int  # of each node, and as many threads
    sync_type: str = (
        ""  # of dllama on several nodes, and whose exchanges the floor's are as long as
    )
    encrypts: bool = False

    @property
    def name(self) -> str:
        nodes = "one node" if self.nodes == 1 else f"{self.nodes} nodes"
        if self.program == "plain TCP":
            return f"plain TCP in C, {self.sync_type}"
        if self.program != "dllama":
            return f"{self.program}{' RPC' if self.program == 'llama.cpp' else ''}, {nodes}"
        if self.nodes == 1:
            return f"{nodes}, {self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{nodes}, {self.sync_type}{'' if self.encrypts else ', plain'}"

    @property
    def background(self) -> Background | None:
        """The program that the other nodes run; None where there are none."""
        if self.nodes == 1:
            return None
        if self.program == "dllama":
            return "encrypted" if self.encrypts else "plain"
        return self.program


def set_ups(
    nodes: int, cores: int, sync_types: Sequence[str], encryptions: Sequence[bool],
    programs: Programs,
) -> list[SetUp]:  # fmt: skip
    """Returns all set-ups, those on one node first: with a node's cores, and with the cores of all.
    llama.cpp gets one server at most, and so two nodes; the floor has two ends."""
    chosen = [SetUp("dllama", 1, cores), SetUp("dllama", 1, nodes * cores)]
    chosen += [
        SetUp("dllama", nodes, cores, sync_type, encrypts)
        for encrypts in encryptions
        for sync_type in sync_types
    ]
    if programs.distributed_llama:
        chosen.append(SetUp("distributed-llama", nodes, cores))
    if programs.batched_bench and programs.rpc_server and nodes == 2:
        chosen.append(SetUp("llama.cpp", nodes, cores))
    if programs.raw_tcp and nodes == 2:
        chosen.append(SetUp("plain TCP", nodes, cores, sync_types[0]))
    return chosen


def background_command(
    kind: Background, threads: int, address: str, folder: Path, programs: Programs
) -> list[str]:
    """Returns what a node other than the first runs."""
    port, count = str(PORTS[kind]), str(threads)
    if kind == "distributed-llama":
        binary = str(programs.distributed_llama)
        return [binary, "worker", "--host", address, "--port", port, "--nthreads", count]
    if kind == "llama.cpp":
        return [str(programs.rpc_server), "-H", address, "-p", port, "-t", count, "-c"]
    if kind == "plain TCP":
        return [str(programs.raw_tcp), "listen", address, port]
    return [
        sys.executable, "-m", "dllama.cli.commands.worker", "--host", address, "--port", port,
        "--threads", count, "--cache-dir", str(folder / "weights"), "--log-level", "warning",
        *(["--no-encrypt"] if kind == "plain" else []),
    ]  # fmt: skip


def peer_command(
    set_up: SetUp, model: Path, sizes: Sizes, addresses: Sequence[str], programs: Programs
) -> list[str]:
    """Returns the process that measures a set-up, on the first node; `addresses` are those of the
    others, and `model` is a file that the program reads."""
    module = [sys.executable, "-m", f"benchmarks.peers.{_MODULES[set_up.program]}"]
    threads = str(set_up.cores)
    others: list[str] = []
    if set_up.background is not None:
        others = [f"{address}:{PORTS[set_up.background]}" for address in addresses]
    if set_up.program == "distributed-llama":
        return [*module, str(programs.distributed_llama), str(model), threads, *others]
    if set_up.program == "llama.cpp":
        n_remote = remote_layers(sizes.layer_weights, sizes.head_weights, sizes.config.n_layers)
        binary = str(programs.batched_bench)
        return [*module, binary, str(model), threads, str(n_remote), *others]
    if set_up.program == "plain TCP":
        of_a_core = sizes.weight_bytes // (set_up.nodes * set_up.cores)  # it has one thread
        numbers = [row_bytes(sizes.config, set_up.sync_type), n_exchanges(sizes.config), of_a_core]
        return [*module, str(programs.raw_tcp), *others, *map(str, numbers)]
    cluster = ["--sync-type", set_up.sync_type] if others else []
    plain = ["--no-encrypt"] if others and not set_up.encrypts else []
    return [*module, str(model), threads, *others, *cluster, *plain]


_MODULES: dict[Program, str] = {
    "dllama": "with_dllama", "distributed-llama": "with_distributed_llama",
    "llama.cpp": "with_llama_rpc", "plain TCP": "with_plain_tcp",
}  # fmt: skip
