"""Norms, SwiGLU, the exponential and the input's quantization against NumPy in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.activations import swiglu
from kernels.emit.exponential import exp_f32
from kernels.emit.jit import kernel
from kernels.gates import Gate
from kernels.matmul import expanded_floats
from kernels.matmul.expanded import NARROWEST
from kernels.matmul.tiles import (
    MANY_BLOCK,
    MANY_FLOAT,
    MANY_FROM,
    n_tiles,
    tile_bounds,
    tile_number,
    widest_tile,
)
from kernels.prepare import IN_PAIRS, activations, prepare
from kernels.weights.layout import Needs


@kernel
def _exp_all(x, out):
    for i in range(x.size):
        out[i] = exp_f32(x[i])


def test_exponential_is_right_to_three_ulp() -> None:
    x = np.linspace(-87, 88, 200_001, dtype=np.float32)
    out = np.zeros_like(x)
    _exp_all(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=3 * 2**-23)


def test_exponential_saturates_without_nan() -> None:
    x = np.array([-1e30, -200, 0, 200, 1e30], np.float32)
    out = np.zeros_like(x)
    _exp_all(x, out)
    assert np.isfinite(out).all() and out[2] == 1 and out[0] < 1e-37


def test_a_gate_of_gelu(team: np.ndarray) -> None:
    gate_up = np.random.default_rng(0).standard_normal((5, 176)).astype(np.float32) * 4
    a = activations(5, 86)
    swiglu(team, gate_up, a, 5, Needs(tiles=True), gate=Gate.GELU)
    gate, up = gate_up[:, :86].astype(np.float64), gate_up[:, 86:172].astype(np.float64)
    gelu = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    np.testing.assert_allclose(a.rows, gelu * up, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n_tokens", [1, 8, 13])
def test_swiglu(team: np.ndarray, n_tokens: int) -> None:
    gate_up = np.random.default_rng(0).standard_normal((n_tokens, 176)).astype(np.float32) * 4
    a = activations(n_tokens, 86)
    swiglu(team, gate_up, a, n_tokens, Needs(tiles=True))
    gate, up = gate_up[:, :86].astype(np.float64), gate_up[:, 86:172].astype(np.float64)
    np.testing.assert_allclose(a.rows, gate / (1 + np.exp(-gate)) * up, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n_tokens", [1, 11, 23, 24, 37, 95, 96, 101])
def test_tiles_hold_the_rows_they_say(team: np.ndarray, n_tokens: int) -> None:
    cols = 64
    a = activations(n_tokens, cols)
    a.rows[:] = np.random.default_rng(1).standard_normal((n_tokens, cols))
    a.rows[n_tokens // 3, :32] = 0
    prepare(team, a, n_tokens, Needs(quants=True, tiles=True))
    for first, width in _tiles(n_tokens, widest_tile(n_tokens, False)):
        tile = a.tiles[first * cols : (first + width) * cols].reshape(cols, width)
        assert np.array_equal(tile.T, a.rows[first : first + width])
    for first, width in _tiles(n_tokens, widest_tile(n_tokens, True)):
        rows = a.rows[first : first + width]
        span = slice(first * 2, (first + width) * 2)
        quants = a.quants[span.start * 32 : span.stop * 32].reshape(2, width, 32)
        if n_tokens >= MANY_FROM:
            quants = (quants.view(np.uint8) ^ 128).view(np.int8)
        scales = a.scales[span].reshape(2, width)
        sums = a.sums[span.start * 3 : span.stop * 3].reshape(2, width, 3)
        weighted = a.weighted[span.start * 3 : span.stop * 3].reshape(2, width, 3)
        back = (quants * scales[..., None]).transpose(1, 0, 2).reshape(width, cols)
        np.testing.assert_allclose(back, rows, atol=np.abs(rows).max() / 127 * 0.51)
        halves = -quants.reshape(2, width, 2, 16).sum(3, dtype=np.int32)
        assert np.array_equal(sums[..., :2], halves)
        assert np.array_equal(sums[..., 2], halves.sum(2))
        np.testing.assert_allclose(weighted, sums * scales[..., None], rtol=2e-7)


@pytest.mark.skipif(IN_PAIRS, reason="rows are laid out in pairs for this processor")
@pytest.mark.parametrize(("n_tokens", "cols"), [(1, 6), (29, 5), (101, 64)])
def test_rows_for_bfloat16_are_rounded_and_have_the_second_of_two_columns_first(
    team: np.ndarray, n_tokens: int, cols: int
) -> None:
    a = activations(n_tokens, cols)
    a.rows[:] = np.random.default_rng(1).standard_normal((n_tokens, cols))
    prepare(team, a, n_tokens, Needs(bf16=True))
    bits = np.pad(a.rows, ((0, 0), (0, cols % 2))).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    swapped = rounded.reshape(n_tokens, -1, 2)[:, :, ::-1].reshape(n_tokens, -1)
    for first, width in _tiles(n_tokens, widest_tile(n_tokens, False)):
        n = swapped.shape[1]
        tile = a.bf16[first * n : (first + width) * n].reshape(n, width)
        assert np.array_equal(tile.T.view(np.uint32), swapped[first : first + width])


def _tiles(n_tokens: int, widest: int) -> Iterator[tuple[int, int]]:
    for number in range(n_tiles(n_tokens, widest)):
        first, end = tile_bounds(number, n_tokens, widest)
        yield first, end - first


@given(st.integers(1, 600), st.sampled_from([4, 6, 8, 12]))
def test_tiles_are_even_and_hold_every_token(n_tokens: int, widest: int) -> None:
    tiles = list(_tiles(n_tokens, widest))
    widths = [width for _, width in tiles]
    assert sum(widths) == n_tokens and max(widths) <= widest
    assert len(tiles) == n_tiles(n_tokens, widest)
    assert max(widths) - min(widths) <= 1 and sorted(widths, reverse=True) == widths
    for number, (first, width) in enumerate(tiles):
        assert first == sum(widths[:number])
        for token in range(first, first + width):
            assert tile_number(token, n_tokens, widest) == number


@pytest.mark.skipif(MANY_FROM > 1000, reason="tokens are never many on this processor")
def test_many_tokens_make_tiles_of_two_widths() -> None:
    for n_tokens in range(MANY_FROM, 300):
        widths = {width for _, width in _tiles(n_tokens, MANY_BLOCK)}
        assert widths <= {MANY_BLOCK, NARROWEST}
        widths = {width for _, width in _tiles(n_tokens, MANY_FLOAT)}
        assert widths <= set(range(expanded_floats.NARROWEST, MANY_FLOAT + 1))
