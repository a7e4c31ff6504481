"""Attention over pages, with biases, norms and rotation before it, against NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kernels.attention.causal import attention, scratch
from kernels.attention.kv_pages import PAGE, WORDS, kv_pages, padded, page_bytes
from kernels.attention.rope import rope_table, rotate_and_store
from kernels.attention.tile import Scoring, scoring
from tests.kernels.attention.read_pages import read_pages

NOTHING = np.zeros(0, np.float32)


@dataclass
class Case:
    n_kv_heads: int
    group: int
    head_dim: int

    @property
    def width(self) -> int:
        return (self.group + 2) * self.n_kv_heads * self.head_dim


CASES = [
    Case(2, 4, 64), Case(1, 1, 128), Case(4, 2, 8), Case(3, 7, 80), Case(1, 12, 32), Case(2, 3, 34),
]  # fmt: skip


@pytest.fixture(params=list(WORDS))
def kind(request: pytest.FixtureRequest) -> str:
    """The type of the pages."""
    return str(request.param)


class Sequences:
    """Runs ragged steps through the kernels, with pages scattered over the pool."""

    def __init__(
        self, team: np.ndarray, kind: str, case: Case, n: int, max_len: int, **extras: np.ndarray
    ) -> None:
        self.team, self.case, self.extras = team, case, extras
        self.scoring: Scoring = scoring(case.head_dim)
        per = -(-max_len // PAGE)
        order = np.random.default_rng(7).permutation(n * per).astype(np.int32)
        self.pages = order.reshape(n, per)
        self.kv = kv_pages(kind, 1, n * per, case.n_kv_heads, case.head_dim)
        for array in self.kv:  # leftovers of others: large, but finite
            array.view(np.uint16)[:] = 0x7BFF
        self.buffers = scratch(8, case.head_dim, max_len)
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
            self.kv.values[0], case.head_dim, self.scoring, self.buffers, out,
        )  # fmt: skip
        return out


def turned(case: Case, x: np.ndarray, **extras: np.ndarray) -> tuple[np.ndarray, ...]:
    """Queries, keys and values (T, heads, head_dim) of one whole sequence x (T, width), float64."""
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
    return (
        turned[:, :n_q],
        turned[:, n_q : n_q + case.n_kv_heads],
        heads[:, n_q + case.n_kv_heads :],
    )


def oracle(
    case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray, how: Scoring | None = None
) -> np.ndarray:
    """Attention of the last len(q) rows over k and v, which are what the pages hold; float64."""
    how = how or scoring(case.head_dim)
    k, v = np.repeat(k, case.group, 1), np.repeat(v, case.group, 1)
    n_later = len(k) - len(q)
    positions = np.arange(n_later, len(k))
    if how.growth.size:
        places = (positions + how.growth_first) // how.growth_length
        places = np.minimum(places, how.growth.size - 1)
        q = q * how.growth[places, None, None]
    scores = np.einsum("thd,shd->hts", q, k) * float(how.scale)
    if how.cap:
        scores = how.cap * np.tanh(scores / how.cap)
    scores[:, ~np.tri(len(q), len(k), n_later, dtype=bool)] = -np.inf
    if how.is_chunked:
        scores[:, np.arange(len(k)) < positions[:, None] // how.window * how.window] = -np.inf
    elif how.window:
        scores[:, np.tri(len(q), len(k), n_later - how.window, dtype=bool)] = -np.inf
    sinks = how.sinks[:, None, None] if how.sinks.size else np.full((1, 1, 1), -np.inf)
    top = np.maximum(scores.max(-1, keepdims=True), sinks)
    weights = np.exp(scores - top)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sinks - top)
    mixed: np.ndarray = np.einsum("hts,shd->thd", weights, v)
    return mixed.reshape(len(q), -1)


def _blocks_largest(x: np.ndarray) -> np.ndarray:
    """The largest size in the block of 32 of each value of x (..., head_dim)."""
    found = [np.abs(x[..., i : i + 32]).max(-1, keepdims=True) for i in range(0, x.shape[-1], 32)]
    return np.repeat(np.concatenate(found, -1), 32, -1)[..., : x.shape[-1]]


def _assert_right(sequences: Sequences, case: Case, x: np.ndarray, out: np.ndarray) -> None:
    """The pages hold the keys and values of x but for their rounding, and out is attention over
    just what they hold."""
    q, k, v = turned(case, x, **sequences.extras)
    held = read_pages(sequences.kv, sequences.pages[0], len(x), case.head_dim)
    for exact, [found] in ((k, held[0]), (v, held[1])):
        if sequences.kv.keys.dtype == np.uint32:
            rounding = np.abs(exact) * 2.0**-22 + 1e-6
        elif sequences.kv.keys.dtype == np.uint16:
            rounding = np.abs(exact) * 2.0**-11 + 1e-6
        else:  # half a step, and the scale's own rounding times 127 steps
            rounding = _blocks_largest(exact) * (0.5 / 127 + 2.0**-11) + 1e-6
        assert (np.abs(found - exact) <= rounding + 1e-5 * np.abs(exact)).all()
    np.testing.assert_allclose(out, oracle(case, q, held[0][0], held[1][0]), atol=2e-5)


def random_rows(case: Case, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, case.width)).astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_a_whole_prompt_equals_theoracle(
    team: np.ndarray, kind: str, case: Case, length: int
) -> None:
    x, sequences = random_rows(case, length), Sequences(team, kind, case, 1, length)
    _assert_right(sequences, case, x, sequences.run([(0, 0, x)]))


def test_biases_and_head_norms(team: np.ndarray, kind: str) -> None:
    case, rng = CASES[0], np.random.default_rng(3)
    extras = {
        "bias": rng.standard_normal(case.width).astype(np.float32),
        "q_norm": rng.uniform(0.5, 1.5, case.head_dim).astype(np.float32),
        "k_norm": rng.uniform(0.5, 1.5, case.head_dim).astype(np.float32),
    }
    x, sequences = random_rows(case, 40), Sequences(team, kind, case, 1, 40, **extras)
    _assert_right(sequences, case, x, sequences.run([(0, 0, x)]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_and_company_change_nothing(team: np.ndarray, kind: str, case: Case) -> None:
    """One token at a time, in chunks beside other sequences, or whole: the same bits."""
    a, b = random_rows(case, 70, 1), random_rows(case, 45, 2)
    whole = Sequences(team, kind, case, 1, 70).run([(0, 0, a)])
    single = Sequences(team, kind, case, 1, 70)
    assert np.array_equal(
        np.concatenate([single.run([(0, t, a[t : t + 1])]) for t in range(70)]), whole
    )
    mixed, parts = Sequences(team, kind, case, 2, 70), []
    for start, end in ((0, 5), (5, 40), (40, 41), (41, 70)):
        other = (1, min(start, 30), b[min(start, 30) : min(start, 30) + 15])
        parts.append(mixed.run([other, (0, start, a[start:end])])[15:])
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("odd", [0.0, 1e-38, 1e-4, 1e4])
def test_blocks_of_any_size_keep_finite(team: np.ndarray, odd: float) -> None:
    """8-bit blocks of zeros, of next to nothing, and large ones."""
    case = CASES[0]
    x, sequences = random_rows(case, 40), Sequences(team, "q8_0", case, 1, 40)
    x[5:9] *= np.float32(odd)
    out = sequences.run([(0, 0, x)])
    q, _, _ = turned(case, x)
    held = read_pages(sequences.kv, sequences.pages[0], 40, case.head_dim)
    want = oracle(case, q, held[0][0], held[1][0])
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4 * max(1.0, odd))


def test_values_are_padded_to_whole_vectors() -> None:
    assert [padded(n) for n in (8, 16, 17, 64, 80)] == [16, 16, 32, 64, 80]


def test_8_bit_pages_take_half_the_memory() -> None:
    assert page_bytes("f16", 16, 8, 64) == 16 * 8 * 32 * 2 * (64 + 64)
    assert page_bytes("q8_0", 16, 8, 64) == 16 * 8 * 32 * 2 * (64 + 2 * 2)
    assert page_bytes("f32", 16, 8, 64) == 2 * page_bytes("f16", 16, 8, 64)
    for kind in WORDS:
        kv = kv_pages(kind, 3, 5, 2, 80)
        assert sum(a.nbytes for a in kv) == 5 * page_bytes(kind, 3, 2, 80)
