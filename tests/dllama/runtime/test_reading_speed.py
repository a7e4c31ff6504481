"""What bytes take is told apart from what half layers take."""

from __future__ import annotations

import math
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.qtypes import QType
from dllama.runtime import reading_speed
from dllama.runtime.reading_speed import PAIRS, measure_reading, told_apart
from dllama.runtime.step_speed import layer_bytes, tiny_model
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


@pytest.mark.parametrize("n_bytes", [1, 8 << 20, 16 << 20])
@pytest.mark.parametrize("qtype", [QType.F32, QType.Q4_0])
def test_models_are_no_larger_than_asked(
    qtype: QType, n_bytes: int, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """And freed. A thick layer of the largest shape has 239 MB in F32."""
    monkeypatch.setattr(reading_speed, "BUDGET_S", 0.001)
    read = []

    def told(thin: tuple[int, int], thick: tuple[int, int], *seconds: float) -> object:
        read.extend([thin, thick])
        return told_apart(thin, thick, *seconds)

    monkeypatch.setattr(reading_speed, "told_apart", told)
    found = measure_reading(qtype, 1, n_bytes, 0.0)
    assert 0 < found.gb_per_s < 1e4
    if n_bytes == 1:
        assert [halves for halves, _ in read] == [2, 2]  # a layer each
    else:
        for halves, taken in read:
            of_layer = taken / (halves / 2)
            assert n_bytes - of_layer < taken <= n_bytes
        (thin_halves, _), (thick_halves, _) = read
        assert thin_halves >= 2 * thick_halves, "bytes and half layers can be told apart"


@pytest.mark.parametrize("qtype", [QType.F32, QType.Q4_0, QType.Q4_K])
def test_the_bytes_of_a_layer_are_known_before_there_is_one(qtype: QType) -> None:
    for shape in PAIRS[-1]:
        with closing(tiny_model(1, qtype, 1, shape)) as model:
            read = model.weights.layers[0].read_bytes(0)
        assert layer_bytes(shape, qtype) == pytest.approx(read, rel=0.02)  # norms are no matrices
