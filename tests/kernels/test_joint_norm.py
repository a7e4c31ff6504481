"""Norms over the heads of all ranks: against NumPy, and the same bits for any cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernels.joint_norm import head_squares, norm_heads, square_sums
from kernels.wire.fixed import add_fixed

N_TOKENS, GROUP_SIZE, N_KV_HEADS, HEAD_DIM = 5, 2, 4, 24
KV = N_KV_HEADS * HEAD_DIM
CUTS = [[0, 4], [0, 1, 4], [0, 0, 1, 2, 3, 4]]


def normed(
    team: np.ndarray, q: np.ndarray, k: np.ndarray, norms: tuple[np.ndarray, np.ndarray],
    cuts: list[int],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Queries (T, heads * head_dim) and keys as ranks with these KV heads norm them."""
    q, k, parts, ranks = q.copy(), k.copy(), [], []
    for first, end in itertools.pairwise(cuts):
        of_q = slice(first * GROUP_SIZE * HEAD_DIM, end * GROUP_SIZE * HEAD_DIM)
        of_k = slice(first * HEAD_DIM, end * HEAD_DIM)
        qkv = np.concatenate([q[:, of_q], k[:, of_k], k[:, of_k]], axis=1)
        parts.append(square_sums(N_TOKENS))
        heads = ((end - first) * GROUP_SIZE, end - first)
        head_squares(
            team, qkv, N_TOKENS, heads, HEAD_DIM, (GROUP_SIZE * KV, KV), parts[-1]
        )  # fmt: skip
        ranks.append((qkv, of_q, of_k))
    totals = np.zeros((N_TOKENS, 16), np.float32)
    add_fixed(parts, totals)
    for qkv, of_q, of_k in ranks:
        q_norm, k_norm = norms[0][of_q].copy(), norms[1][of_k].copy()
        norm_heads(team, qkv, N_TOKENS, totals, q_norm, k_norm, 1e-6)
        q[:, of_q], k[:, of_k] = np.split(qkv[:, : len(q_norm) + len(k_norm)], [len(q_norm)], 1)
    return q, k


@pytest.mark.parametrize("size", [1e-5, 1e-2, 1, 1000])
def test_any_cut_gives_the_norm_and_the_same_bits(team: np.ndarray, size: float) -> None:
    """Keys are a thousand times smaller than queries."""
    rng = np.random.default_rng(4)
    q = (size * rng.standard_normal((N_TOKENS, GROUP_SIZE * KV))).astype(np.float32)
    k = (1e-3 * size * rng.standard_normal((N_TOKENS, KV))).astype(np.float32)
    norms = tuple(rng.uniform(0.5, 2, n).astype(np.float32) for n in (GROUP_SIZE * KV, KV))
    found = [normed(team, q, k, norms, cuts) for cuts in CUTS]
    for ours, theirs, weight in zip(found[0], (q, k), norms, strict=True):
        mean_square = np.square(theirs, dtype=np.float64).mean(1, keepdims=True)
        np.testing.assert_allclose(ours, theirs / np.sqrt(mean_square + 1e-6) * weight, rtol=2e-6)
    for others in found[1:]:
        assert all(np.array_equal(*pair) for pair in zip(others, found[0], strict=True))


@pytest.mark.parametrize("odd", [np.nan, np.inf, 3e4])
def test_what_is_no_number_or_too_large_is_none(team: np.ndarray, odd: float) -> None:
    q, k = np.ones((N_TOKENS, GROUP_SIZE * KV), np.float32), np.ones((N_TOKENS, KV), np.float32)
    q[1] = odd
    norms = (np.ones(GROUP_SIZE * KV, np.float32), np.ones(KV, np.float32))
    for cuts in CUTS:
        q_normed, k_normed = normed(team, q, k, norms, cuts)
        assert np.isnan(q_normed[1]).all()
        assert np.isfinite(np.delete(q_normed, 1, 0)).all()
        assert np.isfinite(k_normed).all()
