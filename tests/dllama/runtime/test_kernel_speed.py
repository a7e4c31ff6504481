"""The kernels are measured for real; of figures only what must hold is asked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dllama.qtypes import COMPUTABLE, QType
from dllama.runtime import kernel_speed
from dllama.runtime.kernel_speed import measure_kernels
from dllama.runtime.rank import progress_memory
from kernels.team import STATE_WORDS
from tests.leaks import no_leaks

MEMORY = 8 << 20
__all__ = ["no_leaks"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_S", "MULTIPLY_S", "VECTOR_S"):
        monkeypatch.setattr(kernel_speed, name, 0.001)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_figure_is_a_speed(n_threads: int, no_leaks: None) -> None:
    found = measure_kernels([QType.F16, QType.Q4_0, QType.F16], n_threads, MEMORY)
    assert [each.qtype for each in found.types] == [QType.F16, QType.Q4_0]
    figures = [found.half_layer_us, found.vector_gvalue_per_s, found.attention_gop_per_s,
               found.sum_gb_per_s]  # fmt: skip
    for each in found.types:
        figures += [each.read_gb_per_s, each.multiply_gop_per_s]
    assert all(math.isfinite(figure) and figure > 0 for figure in figures)


def test_all_types_can_be_measured() -> None:
    found = measure_kernels(sorted(COMPUTABLE), 1, MEMORY)
    assert {each.qtype for each in found.types} == COMPUTABLE


def test_the_rate_of_bytes_counts_the_bytes_of_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that a product moves by a second, the rates are what was read and computed."""
    clock = [0.0]

    def product(team: object, w: object, a: object, n: int, *rest: object) -> None:
        clock[0] += 1.0

    monkeypatch.setattr(kernel_speed, "matmul", product)
    monkeypatch.setattr(kernel_speed.time, "perf_counter", lambda: clock[0])
    memory = np.zeros(2 << 20, np.uint8)
    monkeypatch.setattr(kernel_speed, "SLICE_BYTES", 1 << 20)
    team = kernel_speed.Team(1)
    try:
        groups = (1 << 20) // (16 * 2048 // 32 * 18)
        speed = kernel_speed._read_speed(team, QType.Q4_0, memory)
        assert speed == pytest.approx(groups * 16 * 2048 // 32 * 18 / 1e9)
        speed = kernel_speed._multiply_speed(team, QType.Q8_0, memory)
        n_groups = min(64, (2 << 20) // (16 * 2048 // 32 * 34))
        assert speed == pytest.approx(2 * 256 * 2048 * 16 * n_groups / 1e9)
    finally:
        team.close()


def test_a_watchdog_sees_it_progress() -> None:
    words = progress_memory(bytearray(STATE_WORDS * 8))
    measure_kernels([QType.F32], 1, MEMORY, words)
    assert words[0] > 0
