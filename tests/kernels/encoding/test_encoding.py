"""What the encoders write, read by the gguf library."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.encoding import MODULES
from kernels.encoding.encode import encode_rows
from kernels.formats import format_of

gguf = pytest.importorskip("gguf", reason="the oracle for block formats is the gguf package")

REFERENCE = {
    "q2_k": 0.28925,
    "q3_k": 0.15206,
    "q4_k": 0.07122,
    "q5_k": 0.03600,
    "q6_k": 0.01777,
    "iq4_nl": 0.07636,
    "iq4_xs": 0.07684,
    "mxfp4": 0.11582,
}
"""The root of the mean square of errors that ggml's quantizers leave of `weights`, in parts of the
values' (llama.cpp 0.5.0-dev, no importance matrix)."""


def weights() -> np.ndarray:
    """Rows of normal values of many sizes, (64, 512) float32."""
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((64, 512)) * rng.gamma(2, 0.02, (64, 1))
    return rows.astype(np.float32)


def encoded(fmt: str, values: np.ndarray) -> np.ndarray:
    out = np.zeros((len(values), format_of(fmt).layout.row_bytes(values.shape[1])), np.uint8)
    encode_rows(fmt, values.reshape(-1), out.reshape(-1))
    return out


def decoded(fmt: str, raw: np.ndarray) -> np.ndarray:
    values: np.ndarray = gguf.dequantize(raw, gguf.GGMLQuantizationType[fmt.upper()])
    return values


def error(values: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - values) ** 2) / np.mean(values**2)))


@pytest.mark.parametrize("fmt", REFERENCE)
def test_errors_are_those_of_the_reference(fmt: str) -> None:
    values = weights()
    assert error(values, decoded(fmt, encoded(fmt, values))) < 1.007 * REFERENCE[fmt]


@pytest.mark.parametrize("fmt", MODULES)
def test_a_row_alone_is_that_row_among_others(fmt: str) -> None:
    """Sixteen blocks are encoded at once; the last of a matrix may be fewer."""
    values = weights()[:5]
    raw = encoded(fmt, values)
    for i in range(5):
        assert np.array_equal(encoded(fmt, values[i : i + 1]), raw[i : i + 1])


@pytest.mark.parametrize("fmt", MODULES)
def test_rows_of_every_kind_stay_near(fmt: str) -> None:
    """One value, one sign, large ones, an outlier; zeros, and what is too small for a scale."""
    values = np.random.default_rng(3).standard_normal((8, 256)).astype(np.float32)
    values[0], values[1] = 0.5, -0.5
    values[2], values[3] = np.abs(values[2]), -np.abs(values[3])
    values[4] *= 1000
    values[5, 77] = 100
    values[6], values[7] = 0, values[7] * np.float32(1e-9)
    found = decoded(fmt, encoded(fmt, values))
    allowed = {"q2_k": 0.35, "q3_k": 0.17}.get(fmt, 0.12)
    assert max(error(values[i], found[i]) for i in range(6)) < allowed
    assert abs(found[5, 77] - 100) <= 4 and not found[6].any()
    assert np.abs(found[7]).max() < 1e-8


@pytest.mark.parametrize("fmt", ["q4_k", "q6_k", "iq4_xs", "mxfp4"])
def test_what_was_decoded_is_encoded_with_the_same_values(fmt: str) -> None:
    """Nearly: scales of blocks without values at their ends are searched for anew."""
    values = decoded(fmt, encoded(fmt, weights()[:4]))
    assert error(values, decoded(fmt, encoded(fmt, values))) < 0.02
