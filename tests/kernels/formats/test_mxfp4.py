"""Every power of two that scales a block, the subnormal ones included, in both ways of reading."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.matmul.multiply import matmul
from kernels.prepare import activations, prepare
from kernels.weights.dequantize import dequantize
from kernels.weights.layout import Needs
from kernels.weights.packing import pack

gguf = pytest.importorskip("gguf")


def blocks_of(exponents: np.ndarray) -> np.ndarray:
    """A row of one block for each exponent, uint8 (n, 17): the 16 values twice."""
    codes = np.arange(16, dtype=np.uint8) * 17
    return np.concatenate([exponents[:, None], np.tile(codes, (len(exponents), 1))], axis=1)


def exact(raw: np.ndarray) -> np.ndarray:
    values: np.ndarray = gguf.dequantize(raw, gguf.GGMLQuantizationType.MXFP4)
    return values


def test_every_scale_is_ggmls() -> None:
    raw = blocks_of(np.arange(253, dtype=np.uint8))  # above, values overflow
    out = np.zeros((253, 32), np.float32)
    dequantize("mxfp4", raw, out)
    assert np.array_equal(out, exact(raw))


def test_products_read_the_same_scales(team: np.ndarray) -> None:
    raw = blocks_of(np.arange(240, dtype=np.uint8))  # so that no product overflows
    for n_tokens in (16, 100):
        a = activations(n_tokens, 32)
        columns = np.arange(n_tokens) % 16
        a.rows[np.arange(n_tokens), columns] = 127  # which int8 holds exactly
        prepare(team, a, n_tokens, Needs(quants=True))
        out = np.zeros((n_tokens, 240), np.float32)
        matmul(team, pack(team, "mxfp4", [raw], 32), a, n_tokens, out)
        assert np.array_equal(out, 127 * exact(raw)[:, columns].T)
