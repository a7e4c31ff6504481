"""Latent attention over pages of rows, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.attention.causal import attention, scratch
from kernels.attention.kv_pages import PAGE, WORDS, padded
from kernels.attention.latent import (
    latent_page_bytes,
    latent_pages,
    shift_latents,
    store_latents,
)
from kernels.attention.rope import rope_table
from kernels.attention.tile import scoring
from kernels.latent_heads import deal_heads, gather_heads, join_queries, spread_heads
from kernels.matmul.multiply import matmul
from kernels.prepare import activations
from kernels.weights.layout import Needs
from kernels.weights.packing import Packing
from tests.kernels.attention.read_pages import numbers_of

RANK, ROTATED, NOPE, N_HEADS = 48, 8, 24, 5
WIDTH = RANK + ROTATED
FREQUENCIES = 10000.0 ** (-np.arange(ROTATED // 2) * 2.0 / ROTATED)


def turned(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (T, ..., rotated) with its pairs of neighbours rotated."""
    angle = positions.reshape(-1, *[1] * (x.ndim - 1)) * FREQUENCIES
    a, b = x[..., ::2], x[..., 1::2]
    both = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    return np.stack(both, axis=-1).reshape(x.shape)


@pytest.fixture(params=list(WORDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Sequence:
    """One sequence on pages of its own, in a pool of others' leftovers."""

    def __init__(self, team: np.ndarray, kind: str, n_tokens: int) -> None:
        self.team, n_pages = team, -(-n_tokens // PAGE)
        self.kv = latent_pages(kind, 1, n_pages + 2, WIDTH)
        self.kv.values.view(np.uint16)[:] = 0x7BFF
        self.pages = np.random.default_rng(0).permutation(n_pages + 2)[:n_pages].astype(np.int32)
        self.norm = np.random.default_rng(1).uniform(0.5, 1.5, RANK).astype(np.float32)

    def run(self, first: int, kv: np.ndarray, q: np.ndarray, absorbed: np.ndarray) -> np.ndarray:
        """kv (T, WIDTH), q (T, heads * (NOPE + ROTATED)), absorbed (T, heads, RANK); returns what
        heads mix, (T, heads, RANK)."""
        n, team, width = len(kv), self.team, padded(WIDTH)
        positions = np.arange(first, first + n, dtype=np.int32)
        cosines, sines = np.zeros((2, n, ROTATED // 2), np.float32)
        rope_table(positions, FREQUENCIES, 1.0, cosines, sines)
        store_latents(
            team, np.pad(kv, ((0, 0), (5, 3))).astype(np.float32), (5, 5 + WIDTH), n, self.norm,
            1e-5, cosines, sines, positions, self.pages[positions // PAGE], self.kv.values[0],
        )  # fmt: skip
        queries, out = np.zeros((2, n, N_HEADS * width), np.float32)
        by_head = np.ascontiguousarray(np.swapaxes(absorbed, 0, 1).astype(np.float32))
        join_queries(
            team, q.astype(np.float32), NOPE + ROTATED, by_head.reshape(-1, RANK), n, N_HEADS,
            RANK, cosines, sines, queries,
        )  # fmt: skip
        attention(
            team, queries, np.array([0, n], np.int32), np.zeros((n, 3), np.int32), N_HEADS,
            positions, self.pages[None], self.kv.keys[0], self.kv.values[0], width,
            scoring(NOPE + ROTATED), scratch(8, width, len(self.pages) * PAGE), out,
        )  # fmt: skip
        return out.reshape(n, N_HEADS, width)[:, :, :RANK]

    def rows(self, n: int) -> np.ndarray:
        """The first n rows as pages hold them, (n, WIDTH) float64."""
        table = numbers_of(self.kv.values[0, self.pages, 0], padded(WIDTH), by_token=True)
        return table.reshape(-1, padded(WIDTH))[:n, :WIDTH]


def inputs(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    shapes = (n, WIDTH), (n, N_HEADS * (NOPE + ROTATED)), (n, N_HEADS, RANK)
    kv, q, absorbed = (rng.standard_normal(shape) for shape in shapes)
    return kv, q, absorbed


@pytest.mark.parametrize("n", [1, 7, 90])
def test_rows_are_normed_rotated_and_mixed(team: np.ndarray, kind: str, n: int) -> None:
    sequence = Sequence(team, kind, n)
    kv, q, absorbed = inputs(n)
    mixed = sequence.run(0, kv, q, absorbed)
    held, at = sequence.rows(n), np.arange(n)
    latent = kv[:, :RANK] / np.sqrt((kv[:, :RANK] ** 2).mean(axis=1, keepdims=True) + 1e-5)
    wanted = np.concatenate([latent * sequence.norm, turned(kv[:, RANK:], at)], axis=1)
    step = {"f32": 1e-5, "f16": 2e-3, "q8_0": 2e-2}[kind]
    np.testing.assert_allclose(held, wanted, atol=step * np.abs(wanted).max())
    pe = turned(q.reshape(n, N_HEADS, -1)[:, :, NOPE:], at)
    keys = np.concatenate([absorbed, pe], axis=2)
    scores = np.einsum("ihd,jd->hij", keys, held) / np.sqrt(NOPE + ROTATED)
    scores = np.where(np.triu(np.ones((n, n), bool), 1), -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum("hij,jd->ihd", weights, held[:, :RANK])
    np.testing.assert_allclose(mixed, expected, atol=1e-4 * np.abs(expected).max())


def test_chunks_equal_the_whole(team: np.ndarray, kind: str) -> None:
    kv, q, absorbed = inputs(90)
    whole = Sequence(team, kind, 90).run(0, kv, q, absorbed)
    parts, at = Sequence(team, kind, 90), 0
    for end in (1, 2, 41, 64, 90):
        found = parts.run(at, kv[at:end], q[at:end], absorbed[at:end])
        assert np.array_equal(found, whole[at:end])
        at = end


def test_rows_move_to_earlier_positions(team: np.ndarray, kind: str) -> None:
    n, n_keep, n_drop = 90, 5, 40
    sequence = Sequence(team, kind, n)
    kv, q, absorbed = inputs(n)
    sequence.run(0, kv, q, absorbed)
    before = sequence.rows(n)
    n_after = n - n_drop
    shift_latents(
        team, sequence.kv.values, sequence.pages, sequence.pages[: -(-n_after // PAGE)], n_keep,
        n_drop, n_after, RANK, WIDTH, FREQUENCIES,
    )  # fmt: skip
    after = sequence.rows(n_after)
    step = {"f32": 1e-5, "f16": 2e-3, "q8_0": 3e-2}[kind]
    moved = before[n_keep + n_drop :]
    back = turned(moved[:, RANK:], np.full(len(moved), -n_drop))
    wanted = np.concatenate([before[:n_keep], np.concatenate([moved[:, :RANK], back], axis=1)])
    np.testing.assert_allclose(after, wanted, atol=step * np.abs(wanted).max())


@pytest.mark.parametrize("n", [1, 40])
def test_products_by_head_and_back(team: np.ndarray, n: int) -> None:
    """Of a matrix for each head, packed as several; the queries are a part of wider rows."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, N_HEADS * (NOPE + ROTATED) + 16)).astype(np.float32)
    w = rng.standard_normal((N_HEADS, RANK, NOPE)).astype(np.float32)
    packing = Packing(team, "f32", RANK, NOPE, N_HEADS)
    packing.add(w.reshape(-1, NOPE).view(np.uint8))
    table = np.zeros((N_HEADS + 1, 3), np.int32)
    deal_heads(n, N_HEADS, table)
    assert table[:3].tolist() == [[N_HEADS, n, 0], [0, 0, n], [1, n, n]]
    a, by_head = activations(N_HEADS * n, NOPE), np.zeros((N_HEADS * n, RANK), np.float32)
    gather_heads(team, x, NOPE + ROTATED, table, a, Needs(tiles=True))
    matmul(team, packing.packed(), a, N_HEADS * n, by_head, table=table)
    out = np.zeros((n, N_HEADS * RANK + 4), np.float32)
    spread_heads(team, by_head, n, N_HEADS, RANK, out)
    heads = x[:, :-16].reshape(n, N_HEADS, -1)[:, :, :NOPE].astype(np.float64)
    wanted = np.einsum("thd,hrd->thr", heads, w.astype(np.float64)).reshape(n, -1)
    np.testing.assert_allclose(out[:, :-4], wanted, atol=1e-4)


def test_a_page_has_one_row_for_all_heads(kind: str) -> None:
    kv = latent_pages(kind, 2, 3, 576)
    assert kv.keys.nbytes == 0
    assert kv.values.nbytes == 3 * latent_page_bytes(kind, 2, 576)
