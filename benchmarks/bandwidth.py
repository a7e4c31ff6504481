"""Measures this machine's memory bandwidth and integer rate: the ceilings that speeds are compared
with."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from kernels.emit.jit import kernel, reordered
from kernels.matmul.multiply import matmul
from kernels.prepare import activations, prepare
from kernels.team import Team, claim, region
from kernels.weights.layout import Needs, Packed
from kernels.weights.packing import pack

READ_BYTES = 1 << 30  # far beyond any cache
CHUNK = 1 << 16  # int64 values a thread claims
REPEATS = 5


@reordered
def _sum(values):
    total = 0
    for i in range(values.size):
        total += values[i]
    return total


@region
def _read_all(thread, team, values, sums):
    while True:
        first = claim(team, CHUNK)
        if first >= values.size:
            return
        sums[thread] += _sum(values[first : first + CHUNK])


@kernel
def _read(team, values, sums):
    _read_all(team, (team, values, sums))


def memory_gb_per_s(n_threads: int) -> float:
    """The fastest of a few sums over a gigabyte."""
    values, sums = np.ones(READ_BYTES // 8, np.int64), np.zeros(n_threads, np.int64)
    with Team(n_threads) as team:
        _read(team.state, values[:CHUNK], sums)
        best = min(_timed(lambda: _read(team.state, values, sums)) for _ in range(REPEATS))
    return READ_BYTES / best / 1e9


def int8_gop_per_s(n_threads: int) -> float:
    """Multiplications and additions of a Q8_0 product whose operands stay in the caches."""
    rows, cols, n_tokens = 512, 1024, 64
    raw = np.random.default_rng(0).integers(0, 64, (rows, cols // 32 * 34), np.uint8)
    out = np.zeros((n_tokens, rows), np.float32)
    with Team(n_threads) as team:
        w: Packed = pack(team.state, "q8_0", [raw], cols)
        a = activations(n_tokens, cols)
        a.rows[:] = 1
        prepare(team.state, a, n_tokens, Needs(quants=True))

        def run() -> None:
            for _ in range(20):
                matmul(team.state, w, a, n_tokens, out)

        run()
        best = min(_timed(run) for _ in range(REPEATS))
    return 20 * 2 * rows * cols * n_tokens / best / 1e9


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
