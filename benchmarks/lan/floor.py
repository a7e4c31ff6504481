"""The floor of a link: what a plain TCP connection in C needs for the bytes that two ranks exchange
for a token of a model.

It computes nothing and adds nothing up: no program can synchronise sooner over the same link. Both
ends work for WORK_US before each exchange of a decoded token, as ranks do.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.namespaces import Lan, await_listening
from cluster.mesh.sync_type import SyncType, make_codec
from dllama.config import ModelConfig

SOURCE = Path(__file__).with_name("raw_tcp.c")
PORT = 9_970
WORK_US = 300
N_TOKENS = 40  # decoded; of a prompt, which takes longer, one
LISTEN_S, LONGEST_S = 20.0, 600.0


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What a rank of two sends, and is sent, for one step of `n_rows` tokens."""

    sync_types: tuple[str, ...]  # those that are as large
    n_rows: int
    n_bytes: int  # of one exchange, each way
    n: int


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians over steps: what their exchanges take where both ends look for bytes without
    sleeping, and where they sleep."""

    exchanges: Exchanges
    looking_ms: float
    sleeping_ms: float


def exchanges_of(
    config: ModelConfig, sync_types: Sequence[str], row_counts: Sequence[int]
) -> list[Exchanges]:
    """Returns the exchanges of a step of so many rows, each size once: two a layer, and one for the
    best logits, which is shorter and counted as long as the others."""
    by_size: dict[int, tuple[str, ...]] = {}
    for name in sync_types:
        row_bytes = make_codec(SyncType(name)).row_bytes(config.dim)
        by_size[row_bytes] = (*by_size.get(row_bytes, ()), name)
    return [
        Exchanges(names, n, n * row_bytes, 2 * config.n_layers + 1)
        for row_bytes, names in by_size.items()
        for n in row_counts
    ]


def why_no_floor() -> str | None:
    """Returns why the program cannot be made here; None if it can."""
    if shutil.which("cc") is None:
        return "the floor of plain TCP is left out: it needs a C compiler, cc"
    return None


def compiled(folder: Path) -> Path:
    """Returns the program, made in a folder. Raises CalledProcessError."""
    program = folder / "raw_tcp"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


def measure_floor(
    lan: Lan, program: Path, exchanges: Exchanges,
    cores: tuple[Sequence[int], Sequence[int]], rounds: int,
) -> Floor:  # fmt: skip
    """Measures between machines 0 and 1, each on its own cores: both ways of waiting in turn."""
    looking, sleeping = [], []
    for _ in range(rounds):
        looking.append(_run(lan, program, exchanges, cores, looks=True))
        sleeping.append(_run(lan, program, exchanges, cores, looks=False))
    return Floor(exchanges, statistics.median(looking), statistics.median(sleeping))


def _run(
    lan: Lan, program: Path, exchanges: Exchanges,
    cores: tuple[Sequence[int], Sequence[int]], *, looks: bool,
) -> float:  # fmt: skip
    n_steps, work_us = (N_TOKENS, WORK_US) if exchanges.n_rows == 1 else (1, 0)
    numbers = [PORT, exchanges.n_bytes, exchanges.n, n_steps, work_us, int(looks)]
    words = [str(number) for number in numbers]
    listening = subprocess.Popen(
        lan.command(1, [str(program), "listen", *words], cores[1]), stdout=subprocess.DEVNULL
    )
    try:
        await_listening(listening.pid, PORT, LISTEN_S)
        done = subprocess.run(
            lan.command(0, [str(program), lan.address(1), *words], cores[0]),
            check=True, capture_output=True, text=True, timeout=LONGEST_S,
        )  # fmt: skip
        listening.wait(LISTEN_S)
    finally:
        listening.kill()
        listening.wait()
    return statistics.median(float(line) for line in done.stdout.split()) / 1e3
