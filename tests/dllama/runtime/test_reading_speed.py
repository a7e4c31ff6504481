"""What bytes take is told apart from what half layers take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.qtypes import QType
from dllama.runtime import reading_speed
from dllama.runtime.reading_speed import measure_reading, told_apart
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
THIN, THICK = (48, 120_000_000), (8, 130_000_000)  # half layers, bytes


@given(gb_per_s=st.floats(1, 100), half_us=st.floats(0, 30))
def test_both_are_found_again(gb_per_s: float, half_us: float) -> None:
    thin_s, thick_s = (
        n_bytes / gb_per_s / 1e9 + halves * half_us / 1e6 for halves, n_bytes in (THIN, THICK)
    )
    found = told_apart(THIN, THICK, thin_s, thick_s)
    assert found.gb_per_s == pytest.approx(gb_per_s, rel=1e-6)
    assert found.half_layer_s == pytest.approx(half_us / 1e6, abs=1e-12)


@given(thin_s=st.floats(-1, 1), thick_s=st.floats(1e-6, 1))
def test_disturbed_times_give_a_speed_all_the_same(thin_s: float, thick_s: float) -> None:
    found = told_apart(THIN, THICK, thin_s, thick_s)
    assert 0 < found.gb_per_s < math.inf and 0 <= found.half_layer_s < math.inf
    total_s = THICK[1] / found.gb_per_s / 1e9 + THICK[0] * found.half_layer_s
    assert total_s == pytest.approx(thick_s)


@pytest.mark.parametrize("n_bytes", [1, 16 << 20])
def test_models_are_as_large_as_asked(
    n_bytes: int, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """And freed."""
    monkeypatch.setattr(reading_speed, "BUDGET_S", 0.001)
    read = []

    def told(thin: tuple[int, int], thick: tuple[int, int], *seconds: float) -> object:
        read.extend([thin, thick])
        return told_apart(thin, thick, *seconds)

    monkeypatch.setattr(reading_speed, "told_apart", told)
    found = measure_reading(QType.Q4_0, 1, n_bytes, 0.0)
    assert 0 < found.gb_per_s < 1e4
    if n_bytes == 1:
        assert [halves for halves, _ in read] == [2, 2]  # a layer each
    else:
        for halves, taken in read:
            of_layer = taken / (halves / 2)
            assert abs(taken - n_bytes) <= max(of_layer / 2, of_layer - n_bytes)
