"""Attention over pages, with biases, norms and rotation before it, against NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kernels.attention import PAGE, attention, kv_pages, padded, scratch
from kernels.rope import rope_table, rotate_and_store

NOTHING = np.zeros(0, np.float32)


@dataclass
class Case:
    n_kv_heads: int
    group: int
    head_dim: int

    @property
    def width(self) -> int:
        return (self.group + 2) * self.n_kv_heads * self.head_dim


CASES = [Case(2, 4, 64), Case(1, 1, 128), Case(4, 2, 8), Case(3, 7, 80), Case(1, 12, 32)]


class Sequences:
    """Runs ragged steps through the kernels, with pages scattered over the pool."""

    def __init__(self, team: np.ndarray, case: Case, n: int, max_len: int, **extras: np.ndarray):
        self.team, self.case, self.extras = team, case, extras
        per = -(-max_len // PAGE)
        order = np.random.default_rng(7).permutation(n * per).astype(np.int32)
        self.pages = order.reshape(n, per)
        self.kv = kv_pages(1, n * per, case.n_kv_heads, case.head_dim)
        self.kv.keys[:] = 0x7BFF  # leftovers of others: large, but finite
        self.kv.values[:] = 0x7BFF
        self.inv_freq = 10000.0 ** (-np.arange(case.head_dim // 2) * 2.0 / case.head_dim)

    def run(self, chunks: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
        """chunks: (sequence, first position, qkv (t, width)); returns (T, heads * head_dim)."""
        case, team = self.case, self.team
        qkv = np.concatenate([c[2] for c in chunks]).astype(np.float32)
        sizes = [len(c[2]) for c in chunks]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        pos = np.concatenate([np.arange(f, f + len(x)) for _, f, x in chunks]).astype(np.int32)
        pages = self.pages[[c[0] for c in chunks]]
        seq = np.repeat(np.arange(len(chunks)), sizes)
        row_pages = pages[seq, pos // PAGE]
        cos, sin = (np.zeros((len(qkv), case.head_dim // 2), np.float32) for _ in range(2))
        rope_table(pos, self.inv_freq, 1.0, cos, sin)
        rotate_and_store(
            team, qkv, len(qkv), case.group, case.head_dim, self.extras.get("bias", NOTHING),
            self.extras.get("q_norm", NOTHING), self.extras.get("k_norm", NOTHING), 1e-5, cos,
            sin, pos, row_pages, self.kv.keys[0], self.kv.values[0],
        )  # fmt: skip
        out = np.zeros((len(qkv), case.n_kv_heads * case.group * case.head_dim), np.float32)
        tiles = np.zeros((len(qkv), 3), np.int32)
        attention(
            team, qkv, starts, tiles, case.group, pos, pages, self.kv.keys[0],
            self.kv.values[0], case.head_dim, scratch(8, case.head_dim), out,
        )  # fmt: skip
        return out


def _oracle(case: Case, x: np.ndarray, **extras: np.ndarray) -> np.ndarray:
    """Attention of one whole sequence (T, width), float64; keys and values rounded to float16."""
    hd, n_q = case.head_dim, case.n_kv_heads * case.group
    x = x.astype(np.float64) + extras.get("bias", np.zeros(1))
    heads = x.reshape(len(x), -1, hd).copy()
    for name, part in (("q_norm", slice(0, n_q)), ("k_norm", slice(n_q, n_q + case.n_kv_heads))):
        if name in extras:
            h = heads[:, part]
            mean = (h**2).mean(-1, keepdims=True)
            heads[:, part] = h / np.sqrt(mean + 1e-5) * extras[name]
    freq = 10000.0 ** (-np.arange(hd // 2) * 2.0 / hd)
    angle = np.arange(len(x))[:, None, None] * freq
    a, b = heads[..., : hd // 2].copy(), heads[..., hd // 2 :].copy()
    turned = np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1
    )
    q, k = turned[:, :n_q], turned[:, n_q : n_q + case.n_kv_heads]
    v = heads[:, n_q + case.n_kv_heads :]
    k, v = (i.astype(np.float32).astype(np.float16).astype(np.float64) for i in (k, v))
    k, v = np.repeat(k, case.group, 1), np.repeat(v, case.group, 1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(hd)
    scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", weights, v).reshape(len(x), -1)


def _random(case: Case, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, case.width)).astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_a_whole_prompt_equals_the_oracle(team: np.ndarray, case: Case, length: int) -> None:
    x = _random(case, length)
    out = Sequences(team, case, 1, length).run([(0, 0, x)])
    np.testing.assert_allclose(out, _oracle(case, x), atol=2e-3)


def test_biases_and_head_norms(team: np.ndarray) -> None:
    case, rng = CASES[0], np.random.default_rng(3)
    extras = {
        "bias": rng.standard_normal(case.width).astype(np.float32),
        "q_norm": rng.uniform(0.5, 1.5, case.head_dim).astype(np.float32),
        "k_norm": rng.uniform(0.5, 1.5, case.head_dim).astype(np.float32),
    }
    x = _random(case, 40)
    out = Sequences(team, case, 1, 40, **extras).run([(0, 0, x)])
    np.testing.assert_allclose(out, _oracle(case, x, **extras), atol=2e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_and_company_change_nothing(team: np.ndarray, case: Case) -> None:
    """One token at a time, in chunks beside other sequences, or whole: the same bits."""
    a, b = _random(case, 70, 1), _random(case, 45, 2)
    whole = Sequences(team, case, 1, 70).run([(0, 0, a)])
    single = Sequences(team, case, 1, 70)
    assert np.array_equal(
        np.concatenate([single.run([(0, t, a[t : t + 1])]) for t in range(70)]), whole
    )
    mixed, parts = Sequences(team, case, 2, 70), []
    for start, end in ((0, 5), (5, 40), (40, 41), (41, 70)):
        other = (1, min(start, 30), b[min(start, 30) : min(start, 30) + 15])
        parts.append(mixed.run([other, (0, start, a[start:end])])[15:])
    assert np.array_equal(np.concatenate(parts), whole)


def test_values_are_padded_to_whole_vectors() -> None:
    assert [padded(n) for n in (8, 16, 17, 64, 80)] == [16, 16, 32, 64, 80]
