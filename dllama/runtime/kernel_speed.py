"""Measures this machine's kernels, with all threads that it computes with: some 0.3 s.

Weights are read from memory and not from a cache, as those of a model are. Their bits mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from dllama.collective import SoloCollective
from dllama.config import ModelConfig
from dllama.models import model_tensors
from dllama.qtypes import QType
from dllama.runtime.linear import format_name
from dllama.runtime.rank import RankModel
from dllama.sharding.units import sum_units
from dllama.speeds import KernelSpeeds, TypeSpeed
from dllama.step import Step
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.activations import add_rms_norm, swiglu
from kernels.arrays import huge
from kernels.attention.causal import attention, scratch
from kernels.attention.kv_pages import PAGE, kv_pages
from kernels.formats import format_of
from kernels.matmul.multiply import WHOLE, matmul
from kernels.matmul.sums import Kind, Units
from kernels.prepare import activations
from kernels.team import Team
from kernels.weights.layout import GROUP, Needs, Packed

COLS = 2048
MANY = 256  # rows of a step that reads a prompt
MANY_GROUPS = 64  # of the matrix that they are multiplied with
SLICE_BYTES = 8 << 20  # of weights between two looks at the clock
LEAST_BYTES, MOST_BYTES = 64 << 20, 256 << 20  # of weights that are read: more than a cache holds
READ_S, MULTIPLY_S, VECTOR_S = 0.04, 0.03, 0.01  # each measurement, about
EXACT = Units(256, 256)  # columns of exact sums
FILL = 0x11  # every type reads it as small plain numbers
HEAD_DIM, GROUP_SIZE, N_KV_HEADS = 64, 4, 2
LAYERS = 8
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def measure_kernels(
    types: Sequence[QType], n_threads: int, max_bytes: int, progress: np.ndarray | None = None
) -> KernelSpeeds:
    """Returns the speeds of the kernels for these types, taking at most `max_bytes` of memory.
    `progress` is as in RankModel.load."""
    half_layer_us = _half_layer_us(n_threads)
    team = Team(n_threads, progress)
    try:
        n_bytes = max(SLICE_BYTES, min(_beyond_caches(), max_bytes))
        memory = huge((n_bytes,))
        memory.fill(FILL)
        found = [
            TypeSpeed(qtype, _read_speed(team, qtype, memory), _multiply_speed(team, qtype, memory))
            for qtype in sorted(set(types))
        ]
        vector, attending = _vector_speed(team), _attention_speed(team)
    finally:
        team.close()
    return KernelSpeeds(found, half_layer_us, vector, attending, _sum_speed())


def _beyond_caches() -> int:
    """Returns twice the bytes of the last cache, within bounds."""
    try:
        text = LAST_CACHE.read_text().strip()
        cache = int(text.removesuffix("K")) << (10 if text.endswith("K") else 0)
    except (OSError, ValueError):
        cache = 0
    return max(LEAST_BYTES, min(2 * cache, MOST_BYTES))


def _matrix(qtype: QType, memory: np.ndarray, n_groups: int) -> Packed:
    """Returns a matrix of COLS columns over the first bytes of some memory."""
    name = format_name(qtype)
    quant_bytes, scale_bytes = format_of(name).layout.group_bytes(COLS)
    n_quants, n_scales = n_groups * quant_bytes, n_groups * scale_bytes
    quants = memory[:n_quants].reshape(n_groups, quant_bytes)
    scales = memory[n_quants : n_quants + n_scales].reshape(n_groups, scale_bytes)
    return Packed(name, n_groups * GROUP, COLS, quants, scales)


def _group_bytes(qtype: QType) -> int:
    return sum(format_of(format_name(qtype)).layout.group_bytes(COLS))


def _read_speed(team: Team, qtype: QType, memory: np.ndarray) -> float:
    """Returns GB/s of products with one row."""
    n_groups = max(1, SLICE_BYTES // _group_bytes(qtype))
    n_bytes = n_groups * _group_bytes(qtype)
    a, out = activations(1, COLS), np.zeros((1, n_groups * GROUP), np.float32)
    slices = [
        _matrix(qtype, memory[first : first + n_bytes], n_groups)
        for first in range(0, len(memory) - n_bytes + 1, n_bytes // 64 * 64)
    ]
    turn = cycle(slices)
    seconds = _of_kinds(lambda units: matmul(team.state, next(turn), a, 1, out, 0, units), READ_S)
    return n_bytes / seconds / 1e9


def _multiply_speed(team: Team, qtype: QType, memory: np.ndarray) -> float:
    """Returns Gop/s of products with many rows."""
    matrix = _matrix(qtype, memory, min(MANY_GROUPS, len(memory) // _group_bytes(qtype)))
    a, out = activations(MANY, COLS), np.zeros((MANY, matrix.rows), np.float32)
    n_ops = 2.0 * MANY * matrix.rows * COLS
    seconds = _of_kinds(
        lambda units: matmul(team.state, matrix, a, MANY, out, 0, units), MULTIPLY_S
    )
    return n_ops / seconds / 1e9


def _of_kinds(run: Callable[[Units], None], budget_s: float) -> float:
    """Returns the mean seconds of a product over a layer's matrices: two of three parts have plain
    sums, and those before a collective exact ones."""
    plain = _repeated(lambda: run(WHOLE), budget_s / 2)
    exact = _repeated(lambda: run(EXACT), budget_s / 2)
    return (2 * plain + exact) / 3


def _vector_speed(team: Team) -> float:
    """Returns 10^9 values a second that norms and activations read of many rows."""
    rows, needs = 64, Needs(quants=True)
    x, delta = np.ones((2, rows, COLS), np.float32)
    weight, nothing = np.ones(COLS, np.float32), np.zeros(0, np.float32)
    gate_up, a = np.ones((rows, 2 * COLS), np.float32), activations(rows, COLS)

    def both() -> None:
        add_rms_norm(team.state, x, delta, nothing, weight, 1e-5, a, rows, needs)
        swiglu(team.state, gate_up, a, rows, needs)

    return 3.0 * rows * COLS / _repeated(both, VECTOR_S) / 1e9


def _attention_speed(team: Team) -> float:
    """Returns Gop/s of the attention of many rows over themselves."""
    n_pages, width = -(-MANY // PAGE), GROUP_SIZE * N_KV_HEADS * HEAD_DIM
    kv = kv_pages("f16", 1, n_pages, N_KV_HEADS, HEAD_DIM)
    qkv = np.ones((MANY, width + 2 * N_KV_HEADS * HEAD_DIM), np.float32)
    starts, positions = np.array([0, MANY], np.int32), np.arange(MANY, dtype=np.int32)
    pages, tiles = np.arange(n_pages, dtype=np.int32)[None], np.zeros((MANY, 3), np.int32)
    buffers, out = scratch(team.n_threads, HEAD_DIM, MANY), np.zeros((MANY, width), np.float32)

    def attend() -> None:
        attention(
            team.state, qkv, starts, tiles, GROUP_SIZE, positions, pages, kv.keys[0],
            kv.values[0], HEAD_DIM, buffers, out,
        )  # fmt: skip

    return 2.0 * MANY * (MANY + 1) * width / _repeated(attend, VECTOR_S) / 1e9


def _sum_speed() -> float:
    """Returns GB/s of partial sums that are copied to a message and added up, by one thread."""
    low, out = np.ones(1 << 18, np.int32), np.zeros(1 << 18, np.int32)

    def add() -> None:
        out[:] = low
        np.add(out, low, out=out)

    return low.nbytes / _repeated(add, VECTOR_S) / 1e9


def _half_layer_us(n_threads: int) -> float:
    """Returns what a half layer of one row takes where its matrices are next to nothing: calls,
    threads that wait for each other, the norm."""
    config = ModelConfig(
        arch="llama", name="tiny", dim=64, hidden_dim=64, n_layers=LAYERS, n_heads=2, n_kv_heads=1,
        head_dim=32, vocab_size=64, max_seq_len=64, norm_epsilon=1e-5, rope_theta=1e4,
    )  # fmt: skip
    model = RankModel.load(
        config, _ones(config), n_pages=2, max_step_tokens=1, n_threads=n_threads, vocab_start=0,
        embed_qtype=QType.F32, units=sum_units(config), kind=Kind.ROUNDED,
    )  # fmt: skip
    one, row = np.zeros(1, np.int32), np.zeros((1, 4 * config.dim), np.uint8)
    step = Step(one, one, np.array([0, 1], np.int32), one[None], one, np.array([1], np.int32))
    try:
        seconds = _repeated(lambda: model.forward(step, row, SoloCollective()), VECTOR_S)
    finally:
        model.close()
    return seconds * 1e6 / (2 * LAYERS + 1)


def _ones(config: ModelConfig) -> TensorFeed:
    """Returns the tensors of a small model, all ones."""
    infos = []
    for name, tensor in model_tensors(config).items():
        if name != "embed":
            infos.append(TensorInfo(name, QType.F32, *tensor.shape(config)))
    infos.sort(key=lambda info: (info.layer is None, info.name == "wcls"))
    arrays = ((info, np.ones((info.rows, info.cols), np.float32).view(np.uint8)) for info in infos)
    return TensorFeed(infos, arrays)


def _repeated(run: Callable[[], object], budget_s: float) -> float:
    """Returns the lower quartile of the seconds of some runs, after two that compile: on a busy
    machine, too, it is a run that no other program has interrupted."""
    for _ in range(2):
        run()
    times: list[float] = []
    ended = time.perf_counter() + budget_s
    while not times or time.perf_counter() < ended:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 4]
