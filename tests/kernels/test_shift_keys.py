"""Keys and values that move are those that a rotation by hand gives, in place or on new pages."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.attention import PAGE, KvPages, kv_pages, padded
from kernels.shift_keys import shift_keys
from kernels.team import Team

N_LAYERS, N_PAGES, N_HEADS = 2, 12, 3


def random_pages(rng: np.random.Generator, head_dim: int) -> KvPages:
    kv = kv_pages(N_LAYERS, N_PAGES, N_HEADS, head_dim)
    kv.keys[:] = rng.standard_normal(kv.keys.shape).astype(np.float16).view(np.uint16)
    kv.values[:] = rng.standard_normal(kv.values.shape).astype(np.float16).view(np.uint16)
    return kv


def read(kv: KvPages, pages: np.ndarray, n: int, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys (n_layers, n, n_heads, head_dim) and values of a sequence, float64."""
    shape = (N_LAYERS, len(pages), N_HEADS)
    keys = kv.keys[:, pages].view(np.float16).reshape(*shape, head_dim, PAGE)
    values = kv.values[:, pages].view(np.float16).reshape(*shape, PAGE, padded(head_dim))
    keys = keys.transpose(0, 1, 4, 2, 3).reshape(N_LAYERS, -1, N_HEADS, head_dim)
    values = values.transpose(0, 1, 3, 2, 4).reshape(N_LAYERS, -1, N_HEADS, padded(head_dim))
    return keys[:, :n].astype(np.float64), values[:, :n, :, :head_dim].astype(np.float64)


def turned_back(keys: np.ndarray, inv_freq: np.ndarray, by: int) -> np.ndarray:
    a, b = np.split(keys, 2, axis=-1)
    cosine, sine = np.cos(-by * inv_freq), np.sin(-by * inv_freq)
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("n_tokens", "n_keep", "n_drop", "fresh"),
    [
        (95, 0, 47, ()),
        (95, 10, 42, ()),
        (128, 40, 44, (1,)),
        (128, 40, 44, (1, 2)),
        (70, 0, 69, (0,)),
        (70, 64, 3, ()),
        (97, 33, 1, (1, 2)),
        (3, 1, 1, ()),
    ],
)
@pytest.mark.parametrize("head_dim", [16, 24])
def test_what_stays_is_turned_by_the_distance_it_moves(
    n_tokens: int, n_keep: int, n_drop: int, fresh: tuple[int, ...], head_dim: int, threads: int
) -> None:
    rng = np.random.default_rng(n_tokens)
    kv = random_pages(rng, head_dim)
    inv_freq = 100.0 ** (-np.arange(head_dim // 2) / head_dim)
    n_after = n_tokens - n_drop
    from_pages = np.array([7, 2, 9, 4], np.int32)[: -(-n_tokens // PAGE)]
    to_pages = from_pages[: -(-n_after // PAGE)].copy()
    for i in fresh:
        if i < len(to_pages):
            to_pages[i] = 10 + i % 2
    keys, values = read(kv, from_pages, n_tokens, head_dim)
    untouched = [p for p in range(N_PAGES) if p not in to_pages]
    others = kv.keys[:, untouched].copy(), kv.values[:, untouched].copy()
    with Team(threads) as team:
        shift_keys(
            team.state, kv.keys, kv.values, from_pages, to_pages, n_keep, n_drop, n_after, inv_freq
        )
    new_keys, new_values = read(kv, to_pages, n_after, head_dim)
    assert np.array_equal(new_keys[:, :n_keep], keys[:, :n_keep])
    want = turned_back(keys[:, n_keep + n_drop :], inv_freq, n_drop)
    assert np.abs(new_keys[:, n_keep:] - want).max() < 4e-3  # half floats below 4: 2^-9 apart
    gone = np.s_[n_keep : n_keep + n_drop]
    assert np.array_equal(new_values, np.delete(values, gone, axis=1))
    assert np.array_equal(kv.keys[:, untouched], others[0])
    assert np.array_equal(kv.values[:, untouched], others[1])
