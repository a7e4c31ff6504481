"""Packed matmuls against gguf's dequantization and NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.formats import ALL_TYPES, QUANT_TYPES, format_of
from kernels.matmul.multiply import matmul
from kernels.prepare import activations, prepare
from kernels.weights.layout import Activations, Needs
from kernels.weights.packing import pack
from tests.kernels.weights.random_weights import weights

SHAPES = [(16, 256), (100, 512), (33, 768), (1, 256)]
SMALL_SHAPES = [(16, 32), (100, 96), (33, 64), (172, 256)]  # for blocks of 32
ODD_SHAPES = [(64, 172), (17, 5), (5, 33)]  # for formats without blocks


def _input(team: np.ndarray, x: np.ndarray) -> Activations:
    a = activations(*x.shape)
    a.rows[:] = x
    prepare(team, a, len(x), Needs(quants=x.shape[1] % 32 == 0, tiles=True, bf16=True))
    return a


def _as_the_kernel_sees(a: Activations, x: np.ndarray, fmt: str) -> np.ndarray:
    """The input after its rounding to int8 or bfloat16, in float64: the oracle's twin of that."""
    if fmt == "bf16":
        bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
        return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
    if fmt not in QUANT_TYPES:
        return x.astype(np.float64)
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    top = np.abs(blocks).max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
    return (np.rint(blocks * inverse).astype(np.float64) * (top / np.float32(127))).reshape(x.shape)


def _cases() -> list[tuple[str, int, int]]:
    odd = [(f, *s) for f in ("f32", "f16", "bf16") for s in ODD_SHAPES]
    small = [(f, *s) for f in ALL_TYPES if _unit(f) <= 32 for s in SMALL_SHAPES]
    return [(f, *s) for f in ALL_TYPES for s in SHAPES] + small + odd


def _unit(fmt: str) -> int:
    return format_of(fmt).layout.values


@pytest.mark.parametrize(("fmt", "rows", "cols"), _cases())
def test_product_equals_the_oracle(team: np.ndarray, fmt: str, rows: int, cols: int) -> None:
    raw, exact = weights(fmt, rows, cols)
    w = pack(team, fmt, [raw], cols)
    for n_tokens in (1, 2, 3, 8, 9, 21, 29, 97):
        x = np.random.default_rng(n_tokens).standard_normal((n_tokens, cols)).astype(np.float32)
        a = _input(team, x)
        out = np.full((n_tokens, -(-rows // 16) * 16), np.nan, np.float32)
        matmul(team, w, a, n_tokens, out)
        expected = _as_the_kernel_sees(a, x, fmt) @ exact.T
        # Large terms of both signs cancel where there are minima: the bound is on their size.
        size = np.abs(_as_the_kernel_sees(a, x, fmt)) @ np.abs(exact.T)
        bound = 2e-6 * size.max() + 1e-6
        np.testing.assert_allclose(out[:, :rows], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_a_row_does_not_depend_on_its_batch(team: np.ndarray, fmt: str) -> None:
    raw, _ = weights(fmt, 80, 256)
    w = pack(team, fmt, [raw], 256)
    x = np.random.default_rng(5).standard_normal((101, 256)).astype(np.float32)
    alone = np.zeros((101, 80), np.float32)
    for t in range(101):
        matmul(team, w, _input(team, x[t : t + 1]), 1, alone[t : t + 1])
    for n in (*range(1, 20), 23, 24, 25, 37, 95, 96, 101):
        out = np.zeros((n, 80), np.float32)
        matmul(team, w, _input(team, x[:n]), n, out)
        assert np.array_equal(out, alone[:n])


def test_output_columns_can_be_shifted(team: np.ndarray) -> None:
    raw, _ = weights("q8_0", 24, 64)
    w = pack(team, "q8_0", [raw], 64)
    a = _input(team, np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32))
    plain, shifted = np.zeros((10, 32), np.float32), np.zeros((10, 50), np.float32)
    matmul(team, w, a, 10, plain)
    matmul(team, w, a, 10, shifted, column=18)
    assert np.array_equal(shifted[:, 18:50], plain)
    assert not shifted[:, :18].any()


def test_zero_blocks_stay_zero(team: np.ndarray) -> None:
    raw, _ = weights("q4_0", 16, 64)
    w = pack(team, "q4_0", [raw], 64)
    out = np.full((1, 16), np.nan, np.float32)
    matmul(team, w, _input(team, np.zeros((1, 64), np.float32)), 1, out)
    assert not out.any()
