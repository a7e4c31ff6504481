"""Measures this machine's kernels, with all threads that it computes with: about a second.

Weights are read from memory and not from a cache, as those of a model are. Their bits mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dllama.host.container import cpu_limit
from dllama.qtypes import QType
from dllama.runtime.linear import format_name
from dllama.runtime.reading_speed import measure_reading
from dllama.runtime.step_speed import measure_steps
from dllama.runtime.timing import Timed, lower_quartiles
from dllama.speeds import KernelSpeeds, TypeSpeed
from kernels.activations import swiglu
from kernels.arrays import huge
from kernels.attention.causal import attention, scratch
from kernels.attention.kv_pages import PAGE, kv_pages
from kernels.attention.tile import scoring
from kernels.formats import format_of
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import NO_UNIT
from kernels.norms import add_norm
from kernels.prepare import activations
from kernels.team import Team
from kernels.weights.layout import GROUP, Needs, Packed

COLS = 2048
MANY = 256  # rows of a step that reads a prompt
FEWER = 96  # rows, of which the time that does not grow with them is told apart
MANY_GROUPS = 64  # of the matrix that they are multiplied with
SLICE_BYTES = 8 << 20  # of weights between two looks at the clock
LEAST_BYTES, MOST_BYTES = 64 << 20, 256 << 20  # of weights that are read: more than a cache holds
READ_S, MULTIPLY_S, VECTOR_S = 0.2, 0.2, 0.03  # each measurement, about; the first two of all types
MOST_AS_MODELS = 1.1  # of what products alone read, more is a disturbed measurement
EXACT = 256  # columns of exact sums
FILL = 0x11  # every type reads it as small plain numbers
HEAD_DIM, GROUP_SIZE, N_KV_HEADS = 64, 4, 2
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


class _Probe(NamedTuple):
    """A run that is measured: what it does of something (bytes, operations, values), and the
    seconds that it may take in all."""

    run: Callable[[], object]
    amount: float
    budget_s: float


def measure_kernels(
    types: Sequence[QType], n_threads: int, max_bytes: int, progress: np.ndarray | None = None
) -> KernelSpeeds:
    """Returns the speeds of the kernels for these types, in the order of their numbers, taking at
    most `max_bytes` of memory. Steps are measured with the first type: that of which the model has
    the most bytes. `progress` is as in RankModel.load."""
    found, n_bytes = sorted(set(types)), max(SLICE_BYTES, min(_beyond_caches(), max_bytes))
    overheads = measure_steps(types[0], n_threads)
    reading = measure_reading(types[0], n_threads, min(n_bytes, max_bytes // 2), overheads.step_s)
    with closing(Team(n_threads, progress)) as team:
        memory = huge((n_bytes,))
        memory.fill(FILL)
        probes = [_vectors(team), _attending(team), _summing()]
        for qtype in found:
            probes += _reading(team, qtype, memory, READ_S / len(found))
            for rows in (MANY, FEWER):
                probes += _multiplying(team, qtype, memory, rows, MULTIPLY_S / 2 / len(found))
        times = lower_quartiles([Timed(probe.run, probe.budget_s) for probe in probes])
    speeds = [probe.amount / taken / 1e9 for probe, taken in zip(probes, times, strict=True)]
    vector, attention_, sums, *products = speeds
    pairs = [_of_layer(*products[i : i + 2]) for i in range(0, len(products), 2)]
    as_models = min(MOST_AS_MODELS, reading.gb_per_s / pairs[3 * found.index(types[0])])
    of_types = [
        TypeSpeed(q, as_models * pairs[3 * i], *_by_rows(*pairs[3 * i + 1 : 3 * i + 3]))
        for i, q in enumerate(found)
    ]
    step_us = overheads.step_s * 1e6
    half_layer_us = max(overheads.half_layer_s, reading.half_layer_s) * 1e6
    long_us = overheads.long_half_layer_s * 1e6
    whole = KernelSpeeds(of_types, step_us, half_layer_us, vector, attention_, sums, long_us)
    return whole.slowed(_part_of_time(n_threads, cpu_limit()))


def _part_of_time(n_threads: int, limit_cores: float | None) -> float:
    """Returns the part of the threads' time that a container's limit leaves them: short runs fit
    between two pauses, so their times tell nothing of it."""
    return min(1.0, (n_threads if limit_cores is None else limit_cores) / n_threads)


def _of_layer(plain: float, exact: float) -> float:
    """Returns the speed of products over a layer's matrices: two of three parts have plain
    sums, and those before a collective exact ones."""
    return 3 / (2 / plain + 1 / exact)


def _by_rows(many: float, fewer: float) -> tuple[float, float]:
    """Returns Gop/s without what the weights take once, and the nanoseconds of a weight that this
    is, of the Gop/s with MANY and with FEWER rows."""
    many_ns, fewer_ns = 2 * MANY / many, 2 * FEWER / fewer  # of a weight
    row_ns = (many_ns - fewer_ns) / (MANY - FEWER)
    once_ns = min(max(0.0, fewer_ns - FEWER * row_ns), fewer_ns / 2, many_ns / 2)
    return 2 * MANY / (many_ns - once_ns), once_ns


def _beyond_caches() -> int:
    """Returns eight times the bytes of the last cache, within bounds: of twice as many as it holds
    it keeps a good part (measured: 1.3 times the speed of memory)."""
    try:
        text = LAST_CACHE.read_text().strip()
        cache = int(text.removesuffix("K")) << (10 if text.endswith("K") else 0)
    except (OSError, ValueError):
        cache = 0
    return max(LEAST_BYTES, min(8 * cache, MOST_BYTES))


def _matrix(qtype: QType, memory: np.ndarray, n_groups: int) -> Packed:
    """Returns a matrix of COLS columns over the first bytes of some memory."""
    name = format_name(qtype)
    quant_bytes, scale_bytes = format_of(name).layout.group_bytes(COLS)
    n_quants, n_scales = n_groups * quant_bytes, n_groups * scale_bytes
    quants = memory[:n_quants].reshape(n_groups, quant_bytes)
    scales = memory[n_quants : n_quants + n_scales].reshape(n_groups, scale_bytes)
    return Packed(name, n_groups * GROUP, COLS, quants, scales)


def _matrices(qtype: QType, memory: np.ndarray, n_groups: int) -> list[Packed]:
    """Returns the matrices that lie one after the other in some memory."""
    n_bytes = n_groups * _group_bytes(qtype)
    return [
        _matrix(qtype, memory[first : first + n_bytes], n_groups)
        for first in range(0, len(memory) - n_bytes + 1, max(64, n_bytes // 64 * 64))
    ]


def _group_bytes(qtype: QType) -> int:
    return sum(format_of(format_name(qtype)).layout.group_bytes(COLS))


def _reading(team: Team, qtype: QType, memory: np.ndarray, budget_s: float) -> list[_Probe]:
    """Returns products with one row, of plain and of exact sums: bytes of weights."""
    n_groups = max(1, SLICE_BYTES // _group_bytes(qtype))
    n_bytes = n_groups * _group_bytes(qtype)
    a, out = activations(1, COLS), np.zeros((1, n_groups * GROUP), np.float32)
    turn = cycle(_matrices(qtype, memory, n_groups))

    def product(unit: int) -> Callable[[], None]:
        return lambda: matmul(team.state, next(turn), a, 1, out, 0, unit)

    return [_Probe(product(unit), n_bytes, budget_s / 2) for unit in (NO_UNIT, EXACT)]


def _multiplying(
    team: Team, qtype: QType, memory: np.ndarray, rows: int, budget_s: float
) -> list[_Probe]:
    """Returns products with many rows, of plain and of exact sums: operations."""
    n_groups = min(MANY_GROUPS, len(memory) // _group_bytes(qtype))
    a, out = activations(rows, COLS), np.zeros((rows, n_groups * GROUP), np.float32)
    n_ops = 2.0 * rows * n_groups * GROUP * COLS
    turn = cycle(_matrices(qtype, memory, n_groups))  # a step's weights are in no cache

    def product(unit: int) -> Callable[[], None]:
        return lambda: matmul(team.state, next(turn), a, rows, out, 0, unit)

    return [_Probe(product(unit), n_ops, budget_s / 2) for unit in (NO_UNIT, EXACT)]


def _vectors(team: Team) -> _Probe:
    """Returns norms and activations of many rows: values that they read. A norm reads two of each:
    the residual stream's, and what is added to it."""
    rows, needs = MANY, Needs(quants=True)
    x, delta = np.ones((2, rows, COLS), np.float32)
    weight, nothing = np.ones(COLS, np.float32), np.zeros(0, np.float32)
    gate_up, a = np.ones((rows, 2 * COLS), np.float32), activations(rows, COLS)

    def both() -> None:
        add_norm(team.state, x, delta, nothing, weight, 1e-5, a, rows, needs)
        swiglu(team.state, gate_up, a, rows, needs)

    return _Probe(both, 4.0 * rows * COLS, VECTOR_S)


def _attending(team: Team) -> _Probe:
    """Returns the attention of many rows over themselves: operations."""
    n_pages, width = -(-MANY // PAGE), GROUP_SIZE * N_KV_HEADS * HEAD_DIM
    kv = kv_pages("f16", 1, n_pages, N_KV_HEADS, HEAD_DIM)
    qkv = np.ones((MANY, width + 2 * N_KV_HEADS * HEAD_DIM), np.float32)
    starts, positions = np.array([0, MANY], np.int32), np.arange(MANY, dtype=np.int32)
    pages, tiles = np.arange(n_pages, dtype=np.int32)[None], np.zeros((MANY, 3), np.int32)
    scored = scoring(HEAD_DIM)
    buffers, out = scratch(team.n_threads, HEAD_DIM, MANY), np.zeros((MANY, width), np.float32)

    def attend() -> None:
        attention(
            team.state, qkv, starts, tiles, GROUP_SIZE, positions, pages, kv.keys[0],
            kv.values[0], HEAD_DIM, scored, buffers, out,
        )  # fmt: skip

    return _Probe(attend, 2.0 * MANY * (MANY + 1) * width, VECTOR_S)


def _summing() -> _Probe:
    """Returns partial sums that are copied to a message and added up, by one thread: bytes."""
    low, out = np.ones(1 << 18, np.int32), np.zeros(1 << 18, np.int32)

    def add() -> None:
        out[:] = low
        np.add(out, low, out=out)

    return _Probe(add, low.nbytes, VECTOR_S)
