"""The kernels are measured for real; of figures only what must hold is asked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dllama.qtypes import COMPUTABLE, QType
from dllama.runtime import kernel_speed, reading_speed, step_speed
from dllama.runtime.kernel_speed import measure_kernels
from dllama.runtime.rank import progress_memory
from dllama.runtime.reading_speed import Reading
from dllama.speeds import KernelSpeeds, TypeSpeed
from kernels.team import STATE_WORDS
from tests.alike_types import is_tested
from tests.leaks import no_leaks

MEMORY = 8 << 20
__all__ = ["no_leaks"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_S", "MULTIPLY_S", "VECTOR_S"):
        monkeypatch.setattr(kernel_speed, name, 0.001)
    for module in (step_speed, reading_speed):
        monkeypatch.setattr(module, "BUDGET_S", 0.001)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_figure_is_a_speed(n_threads: int, no_leaks: None) -> None:
    found = measure_kernels([QType.F16, QType.Q4_0, QType.F16], n_threads, MEMORY)
    assert [each.qtype for each in found.types] == [QType.F16, QType.Q4_0]
    figures = [found.step_us, found.half_layer_us, found.vector_gvalue_per_s,
               found.attention_gop_per_s, found.sum_gb_per_s]  # fmt: skip
    for each in found.types:
        figures += [each.read_gb_per_s, each.multiply_gop_per_s]
    assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert found.long_half_layer_us > 0
    assert all(0 <= each.expand_ns < math.inf for each in found.types)


def test_all_types_can_be_measured() -> None:
    types = {qtype for qtype in COMPUTABLE if is_tested(qtype.name)}
    found = measure_kernels(sorted(types), 1, MEMORY)
    assert {each.qtype for each in found.types} == types


def test_amounts_are_those_of_the_type() -> None:
    memory = np.zeros(16 << 20, np.uint8)
    team = kernel_speed.Team(1)
    try:
        reading = kernel_speed._reading(team, QType.Q4_0, memory, 1.0)
        groups = (8 << 20) // (16 * 2048 // 32 * 18)
        assert {probe.amount for probe in reading} == {groups * 16 * 2048 // 32 * 18}
        for rows in (96, 256):
            multiplying = kernel_speed._multiplying(team, QType.Q8_0, memory, rows, 1.0)
            assert {probe.amount for probe in multiplying} == {2 * rows * 2048 * 16 * 64}
    finally:
        team.close()


def test_weights_are_read_as_models_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all types, in proportion to the first, which is that of the model's layers; half layers
    take what they take behind weights."""
    asked = []

    def read(qtype: QType, n_threads: int, n_bytes: int, step_s: float) -> Reading:
        asked.append((qtype, n_threads, n_bytes))
        return Reading(1e-3, 0.5)

    monkeypatch.setattr(kernel_speed, "measure_reading", read)
    slow = measure_kernels([QType.Q8_0, QType.F16], 1, MEMORY)
    assert asked == [(QType.Q8_0, 1, MEMORY // 2)]
    assert [each.qtype for each in slow.types] == [QType.F16, QType.Q8_0]
    assert slow.types[1].read_gb_per_s == pytest.approx(1e-3)
    assert slow.types[0].read_gb_per_s < 0.1 and slow.half_layer_us == pytest.approx(5e5)
    monkeypatch.setattr(kernel_speed, "measure_reading", lambda *args: Reading(1e6, 0.0))
    assert measure_kernels([QType.Q8_0], 1, MEMORY).types[0].read_gb_per_s < 1e4


def test_a_container_has_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_speed._part_of_time(2, None) == 1.0 == kernel_speed._part_of_time(2, 3.0)
    assert kernel_speed._part_of_time(2, 0.5) == 0.25
    whole = KernelSpeeds([TypeSpeed(QType.F32, 8.0, 4.0, 0.5)], 100.0, 10.0, 2.0, 6.0, 12.0, 50.0)
    quarter = KernelSpeeds([TypeSpeed(QType.F32, 2.0, 1.0, 2.0)], 400.0, 40.0, 0.5, 1.5, 3.0, 200.0)
    assert whole.slowed(0.25) == quarter
    parts = []
    monkeypatch.setattr(kernel_speed, "cpu_limit", lambda: 0.5)
    monkeypatch.setattr(KernelSpeeds, "slowed", lambda speeds, part: parts.append(part))
    measure_kernels([QType.F32], 1, MEMORY)
    assert parts == [0.5]


def test_what_weights_take_once_is_told_apart_from_what_each_row_takes() -> None:
    """0.5 ns a weight and 0.01 ns a weight and row."""
    speeds = [2 * rows / (0.5 + 0.01 * rows) for rows in (256, 96)]
    multiply, once_ns = kernel_speed._by_rows(*speeds)
    assert (multiply, once_ns) == pytest.approx((200.0, 0.5))
    assert kernel_speed._by_rows(100.0, 100.0) == pytest.approx((100.0, 0.0))
    assert kernel_speed._by_rows(100.0, 110.0) == pytest.approx((100.0, 0.0))  # noise
    multiply, once_ns = kernel_speed._by_rows(100.0, 10.0)  # more than it can be
    assert multiply > 0 and once_ns == pytest.approx(2.56)


def test_two_of_three_parts_have_plain_sums() -> None:
    assert kernel_speed._of_layer(30.0, 30.0) == pytest.approx(30.0)
    assert kernel_speed._of_layer(30.0, 15.0) == pytest.approx(3 / (2 / 30 + 1 / 15))


def test_a_watchdog_sees_it_progress() -> None:
    words = progress_memory(bytearray(STATE_WORDS * 8))
    measure_kernels([QType.F32], 1, MEMORY, words)
    assert words[0] > 0
