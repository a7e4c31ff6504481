"""Statistics of two models against their definitions, and what must hold for one beside itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dllama.divergence.comparison import TokenPair, comparison_of
from dllama.step import LogitRow

N, VOCAB = 200, 50


def log_softmax(logits: np.ndarray) -> np.ndarray:
    tops = logits.max(axis=1, keepdims=True)
    found: np.ndarray = logits - tops - np.log(np.exp(logits - tops).sum(axis=1, keepdims=True))
    return found


def models(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logits of a base model and of one near it, (N, VOCAB) each, and the tokens."""
    rng = np.random.default_rng(5)
    base = 3 * rng.standard_normal((N, VOCAB))
    return base, base + noise * rng.standard_normal((N, VOCAB)), rng.integers(0, VOCAB, N)


def pairs(base: np.ndarray, own: np.ndarray, tokens: np.ndarray) -> list[TokenPair]:
    known = log_softmax(base).astype(np.float32)
    sums = [float(np.log(np.exp(row).sum())) for row in own]
    rows = [LogitRow(None, row.astype(np.float32), s) for row, s in zip(own, sums, strict=True)]
    return [TokenPair(*of, int(t)) for *of, t in zip(rows, known, tokens, strict=True)]


def test_the_figures_are_those_of_their_definitions() -> None:
    base, own, tokens = models(0.5)
    p, q = log_softmax(base), log_softmax(own)
    found, at = comparison_of(pairs(base, own, tokens), 3), np.arange(N)
    divergences = (np.exp(p) * (p - q)).sum(axis=1)
    assert (found.n_windows, found.n_tokens) == (3, N)
    assert found.divergence.value == pytest.approx(divergences.mean(), rel=1e-4)
    assert found.divergence.error == pytest.approx(divergences.std() / math.sqrt(N - 1), rel=1e-4)
    assert found.divergences[90.0] == pytest.approx(np.percentile(divergences, 90), rel=1e-4)
    assert found.divergences[100.0] == pytest.approx(divergences.max(), rel=1e-4)
    losses, base_losses = -q[at, tokens], -p[at, tokens]
    assert found.perplexity.value == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    assert found.base_perplexity.value == pytest.approx(math.exp(base_losses.mean()), rel=1e-5)
    assert found.ratio.value == pytest.approx(math.exp((losses - base_losses).mean()), rel=1e-5)
    error = (losses - base_losses).std() / math.sqrt(N - 1)  # of pairs, so with their covariance
    assert found.log_ratio.error == pytest.approx(error, rel=1e-3)
    expected = np.corrcoef(losses, base_losses)[0, 1]
    assert found.correlation == pytest.approx(expected, rel=1e-4)
    changes = np.exp(-losses) - np.exp(-base_losses)
    assert found.change.value == pytest.approx(changes.mean(), rel=1e-3)
    assert found.rms_change.value == pytest.approx(np.sqrt((changes**2).mean()), rel=1e-4)
    assert found.changes[75.0] == pytest.approx(np.percentile(changes, 75), abs=1e-6)
    same = np.mean(p.argmax(axis=1) == q.argmax(axis=1))
    assert 0.3 < same < 1 and found.same_top.value == pytest.approx(same)


def test_a_model_beside_itself_differs_by_nothing() -> None:
    base, _, tokens = models(0)
    found = comparison_of(pairs(base, base, tokens), 1)
    assert abs(found.divergence.value) < 1e-6 and found.same_top.value == 1
    assert found.ratio.value == pytest.approx(1, abs=1e-6)
    assert found.correlation == pytest.approx(1, abs=1e-6) and found.rms_change.value < 1e-6


def test_more_noise_is_more_divergence() -> None:
    found = [comparison_of(pairs(*models(noise)), 1).divergence.value for noise in (0.1, 0.3, 1)]
    assert found == sorted(found) and found[0] > 0


def test_one_token_has_no_errors() -> None:
    base, own, tokens = models(0.5)
    found = comparison_of(pairs(base[:1], own[:1], tokens[:1]), 1)
    assert found.divergence.error == found.perplexity.error == found.same_top.error == 0
