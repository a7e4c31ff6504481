"""Packed matmuls against gguf's dequantization and NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.activations import activations, prepare
from kernels.layout import Activations
from kernels.matmul import matmul
from kernels.packing import pack

gguf = pytest.importorskip("gguf")
FORMATS = ["q4_0", "q8_0", "f16", "bf16", "f32"]
SHAPES = [(16, 32), (100, 96), (33, 64), (1, 32), (172, 256)]
ODD_SHAPES = [(64, 172), (17, 5), (5, 33)]  # for formats without blocks


def _weights(fmt: str, rows: int, cols: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(raw rows as in a file, their exact values in float64)."""
    kind = gguf.GGMLQuantizationType[fmt.upper()]
    values = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    raw = gguf.quantize(values, kind)
    return raw.view(np.uint8).reshape(rows, -1), gguf.dequantize(raw, kind).astype(np.float64)


def _input(team: np.ndarray, x: np.ndarray) -> Activations:
    a = activations(*x.shape)
    a.rows[:] = x
    prepare(team, a, len(x), (x.shape[1] % 32 == 0, True))
    return a


def _as_the_kernel_sees(a: Activations, x: np.ndarray, fmt: str) -> np.ndarray:
    """The input after its rounding to int8, in float64: the oracle's twin of the quantization."""
    if fmt not in ("q4_0", "q8_0"):
        return x.astype(np.float64)
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    top = np.abs(blocks).max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
    return (np.rint(blocks * inverse).astype(np.float64) * (top / np.float32(127))).reshape(x.shape)


def _cases() -> list[tuple[str, int, int]]:
    odd = [(f, *s) for f in ("f32", "f16", "bf16") for s in ODD_SHAPES]
    return [(f, *s) for f in FORMATS for s in SHAPES] + odd


@pytest.mark.parametrize(("fmt", "rows", "cols"), _cases())
def test_product_equals_the_oracle(team: np.ndarray, fmt: str, rows: int, cols: int) -> None:
    raw, exact = _weights(fmt, rows, cols)
    w = pack(team, fmt, raw, cols)
    for n_tokens in (1, 2, 3, 8, 9, 21):
        x = np.random.default_rng(n_tokens).standard_normal((n_tokens, cols)).astype(np.float32)
        a = _input(team, x)
        out = np.full((n_tokens, -(-rows // 16) * 16), np.nan, np.float32)
        matmul(team, w, a, n_tokens, out)
        expected = _as_the_kernel_sees(a, x, fmt) @ exact.T
        bound = 1e-6 * cols**0.5 * np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(out[:, :rows], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_row_does_not_depend_on_its_batch(team: np.ndarray, fmt: str) -> None:
    raw, _ = _weights(fmt, 80, 128)
    w = pack(team, fmt, raw, 128)
    x = np.random.default_rng(5).standard_normal((19, 128)).astype(np.float32)
    alone = np.zeros((19, 80), np.float32)
    for t in range(19):
        matmul(team, w, _input(team, x[t : t + 1]), 1, alone[t : t + 1])
    for n in range(1, 20):
        out = np.zeros((n, 80), np.float32)
        matmul(team, w, _input(team, x[:n]), n, out)
        assert np.array_equal(out, alone[:n])


def test_output_columns_can_be_shifted(team: np.ndarray) -> None:
    raw, _ = _weights("q8_0", 24, 64)
    w = pack(team, "q8_0", raw, 64)
    a = _input(team, np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32))
    plain, shifted = np.zeros((10, 32), np.float32), np.zeros((10, 50), np.float32)
    matmul(team, w, a, 10, plain)
    matmul(team, w, a, 10, shifted, column=18)
    assert np.array_equal(shifted[:, 18:50], plain)
    assert not shifted[:, :18].any()


def test_zero_blocks_stay_zero(team: np.ndarray) -> None:
    raw, _ = _weights("q4_0", 16, 64)
    w = pack(team, "q4_0", raw, 64)
    out = np.full((1, 16), np.nan, np.float32)
    matmul(team, w, _input(team, np.zeros((1, 64), np.float32)), 1, out)
    assert not out.any()


def test_pack_refuses_rows_of_another_length(team: np.ndarray) -> None:
    with pytest.raises(ValueError, match="are not 64 values of q4_0"):
        pack(team, "q4_0", np.zeros((16, 18), np.uint8), 64)
