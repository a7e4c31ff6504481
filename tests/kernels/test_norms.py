"""Norms of the residual stream against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.norms import add_norm
from kernels.prepare import activations
from kernels.weights.layout import Needs


@pytest.mark.parametrize("n_tokens", [1, 5, 17])
def test_norm_adds_then_normalises(team: np.ndarray, n_tokens: int) -> None:
    rng = np.random.default_rng(n_tokens)
    x, delta = rng.standard_normal((2, n_tokens, 96)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 96).astype(np.float32)
    total = (x + delta).astype(np.float64)
    a = activations(n_tokens, 96)
    add_norm(team, x, delta, weight[:0], weight, 1e-5, a, n_tokens, Needs(quants=True, tiles=True))
    assert np.array_equal(x, total.astype(np.float32))
    expected = total / np.sqrt((total**2).mean(1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(a.rows, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n_tokens", [1, 9])
@pytest.mark.parametrize("has_norm", [False, True])
def test_a_bias_is_added_before_the_norm(team: np.ndarray, n_tokens: int, has_norm: bool) -> None:
    rng = np.random.default_rng(n_tokens)
    x, delta = rng.standard_normal((2, n_tokens, 96)).astype(np.float32)
    weight, bias = rng.uniform(0.5, 2, (2, 96)).astype(np.float32)
    added = (delta + bias).astype(np.float64)
    if has_norm:
        added = added / np.sqrt((added**2).mean(1, keepdims=True) + 1e-5) * weight
    expected = x + added
    a = activations(n_tokens, 96)
    after = weight if has_norm else weight[:0]
    add_norm(team, x, delta, after, weight[:0], 1e-5, a, n_tokens, Needs(tiles=True), bias=bias)
    np.testing.assert_allclose(x, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dim", [96, 130])
def test_a_centered_norm_takes_the_mean_off_and_adds_a_bias(team: np.ndarray, dim: int) -> None:
    rng = np.random.default_rng(dim)
    x, delta = (3 + rng.standard_normal((2, 5, dim))).astype(np.float32)
    weight, bias = rng.uniform(0.5, 2, (2, dim)).astype(np.float32)
    before = np.concatenate([weight, bias])
    a, none = activations(5, dim), weight[:0]
    expected = x + np.float64(0.25) * delta
    add_norm(
        team, x, delta, none, before, 1e-5, a, 5, Needs(tiles=True), scale=0.25, is_centered=True
    )
    np.testing.assert_allclose(x, expected, rtol=2e-6, atol=1e-6)
    left = expected - expected.mean(1, keepdims=True)
    normed = left / np.sqrt((left**2).mean(1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(a.rows[:, :dim], normed, rtol=1e-5, atol=2e-6)
