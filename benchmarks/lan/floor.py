"""The floor of a link: what a plain TCP connection in C needs for the bytes that two ranks exchange
for a decoded token of a model, or for its prompt.

It computes nothing and adds nothing up: no program that exchanges as many bytes can do so sooner
over the same link. The bytes are those of dllama's own layout (cluster/planning/syncs.py); what
ranks send of a prompt in two hops goes at once. Both ends work for WORK_US before each exchange of
a decoded token, as ranks do. What exchanging costs a program that reads weights in between is
measured in turn with the others (benchmarks/peers/with_plain_tcp.py).
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lan.exchanges import PORT, Exchanges, raw_tcp_words, read_spent
from benchmarks.namespaces import Lan

SOURCE = Path(__file__).with_name("raw_tcp.c")
WORK_US = 300
N_TOKENS = 40  # decoded; of a prompt, which takes longer, one
LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians over steps: what their exchanges take where both ends look for bytes without
    sleeping, and where they sleep."""

    exchanges: Exchanges
    looking_ms: float
    sleeping_ms: float


def why_no_floor() -> str | None:
    """Returns why the program cannot be made here; None if it can."""
    if shutil.which("cc") is None:
        return "the floor of plain TCP is left out: it needs a C compiler, cc"
    return None


def compiled(folder: Path) -> Path:
    """Returns the program, made in a folder. Raises CalledProcessError."""
    program = folder / "raw_tcp"
    subprocess.run(["cc", "-O3", "-march=native", "-o", str(program), str(SOURCE)], check=True)
    return program


def measure_floor(
    lan: Lan, program: Path, exchanges: Exchanges, cores: Sequence[int], rounds: int
) -> Floor:
    """Measures from machine 0, with these cores, to machine 1, where the program has to listen:
    both ways of waiting in turn."""
    looking, sleeping = [], []
    for _ in range(rounds):
        looking.append(_run(lan, program, exchanges, cores, looks=True))
        sleeping.append(_run(lan, program, exchanges, cores, looks=False))
    return Floor(exchanges, statistics.median(looking), statistics.median(sleeping))


def _run(
    lan: Lan, program: Path, exchanges: Exchanges, cores: Sequence[int], *, looks: bool
) -> float:
    n_tokens, work_us = (N_TOKENS, WORK_US) if exchanges.n_rows == 1 else (1, 0)
    words = raw_tcp_words(exchanges.n_bytes, exchanges.n, n_tokens, work_us=work_us, looks=looks)
    done = subprocess.run(
        lan.command(0, [str(program), lan.address(1), str(PORT), *words], cores),
        check=True, capture_output=True, text=True, timeout=LONGEST_S,
    )  # fmt: skip
    return statistics.median(spent.lost_ms for spent in read_spent(done.stdout))
