"""What two nodes lose because their cores are never equally fast: no network, no model.

    python -m benchmarks.unequal_cores                    # core 0 and core 1, 40 s
    python -m benchmarks.unequal_cores --cores 0,2 --seconds 20

A process on each core multiplies a small matrix of Q4_0 with rows of a prompt, again and again, and
notes when each product was done. Ranks of a cluster have equal work between two meetings, and the
faster one waits for the slower one; threads of one machine share what is left to do. So the table
tells, by the milliseconds between two meetings, which part of what both cores did freely is left
when each meeting waits for both: no cluster with equal shares can have more of it on these cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from rich.console import Console
from rich.table import Table

from dllama.cli.flags.arguments import positive
from kernels.arrays import huge
from kernels.formats import format_of
from kernels.matmul.multiply import matmul
from kernels.prepare import activations
from kernels.team import Team
from kernels.weights.layout import GROUP, Packed

ROWS, N_ROWS, N_COLS = 171, 512, 2048  # of a prompt's group, and of the matrix: about a millisecond
FILL = 0x11  # weights whose bits mean nothing
WARM_UP = 20  # products before the clock
START_S = 3.0  # until both processes are ready
MEETINGS_MS = (1, 10, 60, 200)  # a decoded token's and a prompt's half layers, and more


def multiplied(core: int, start: float, seconds: float) -> np.ndarray:
    """Returns when each product was done on a core, seconds from the first on, (n,) float64."""
    os.sched_setaffinity(0, {core})
    quant_bytes, scale_bytes = format_of("q4_0").layout.group_bytes(N_COLS)
    n_groups = N_ROWS // GROUP
    memory = huge((n_groups * (quant_bytes + scale_bytes),))
    memory.fill(FILL)
    quants, scales = memory[: n_groups * quant_bytes], memory[n_groups * quant_bytes :]
    w = Packed("q4_0", N_ROWS, N_COLS, quants.reshape(n_groups, -1), scales.reshape(n_groups, -1))
    a, out = activations(ROWS, N_COLS), np.zeros((ROWS, N_ROWS), np.float32)
    with closing(Team(1)) as team:
        for _ in range(WARM_UP):
            matmul(team.state, w, a, ROWS, out)
        time.sleep(max(0.0, start - time.time()))
        times = [time.perf_counter()]
        while times[-1] < times[0] + seconds:
            matmul(team.state, w, a, ROWS, out)
            times.append(time.perf_counter())
    return np.array(times) - times[0]


def kept(times: Sequence[np.ndarray], n_between: float) -> float:
    """Returns the part of all cores' products that is left where each core has `n_between` of them
    between two meetings, and all wait for the slowest; `times` are when each was done, by core."""
    counts = [np.arange(len(done)) for done in times]
    end = min(done[-1] for done in times)
    freely = sum(float(np.interp(end, done, n)) for done, n in zip(times, counts, strict=True))
    now = together = 0.0
    while True:
        done_now = [float(np.interp(now, done, n)) for done, n in zip(times, counts, strict=True)]
        if any(n + n_between > len(done) - 1 for n, done in zip(done_now, times, strict=True)):
            break
        now = max(
            float(np.interp(first + n_between, n, done))
            for first, n, done in zip(done_now, counts, times, strict=True)
        )
        together += n_between * len(times)
    return together / freely * end / now if now else 0.0


def _cores(text: str) -> list[int]:
    cores = [int(part) for part in text.split(",")]
    if len(set(cores)) < 2 or not set(cores) <= os.sched_getaffinity(0):
        own = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise argparse.ArgumentTypeError(f"two cores or more of those there are: {own}")
    return cores


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cores", metavar="A,B", type=_cores, default=[0, 1], help="0,1 by default"
    )
    parser.add_argument("--seconds", metavar="N", type=positive, default=40)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    start = time.time() + START_S
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(args.cores)) as pool:
        times = pool.starmap(multiplied, [(core, start, args.seconds) for core in args.cores], 1)
    each_ms = float(np.median(np.concatenate([np.diff(done) for done in times]))) * 1e3
    table = Table("ms of work between two meetings", "of both cores freely")
    for between in MEETINGS_MS:
        n_between = max(1.0, between / each_ms)
        table.add_row(f"{n_between * each_ms:.0f}", f"{kept(times, n_between):.3f}")
    console = Console()
    console.print(table)
    totals = " and ".join(str(len(done) - 1) for done in times)
    console.print(f"Products by core: {totals}, of {each_ms:.2f} ms in the middle.")


if __name__ == "__main__":
    main()
