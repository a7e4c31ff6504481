"""Keys and values that move are those that a rotation by hand gives, in place or on new pages."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.attention.kv_pages import PAGE, WORDS, KvPages, kv_pages
from kernels.attention.shift_keys import shift_keys
from kernels.team import Team
from tests.kernels.attention.read_pages import read_pages

N_LAYERS, N_PAGES, N_HEADS = 2, 12, 3


def random_pages(kind: str, rng: np.random.Generator, head_dim: int) -> KvPages:
    kv = kv_pages(kind, N_LAYERS, N_PAGES, N_HEADS, head_dim)
    for array in kv:
        if kind == "f32":
            array[:] = rng.standard_normal(array.shape).astype(np.float32).view(np.uint32)
        elif kind == "f16":
            array[:] = rng.standard_normal(array.shape).astype(np.float16).view(np.uint16)
        else:  # any bytes, of which the last of a page are half floats: scales near 1 / 40
            array[:] = rng.integers(0, 256, array.shape, np.uint8)
            array.view(np.uint16)[..., -PAGE * -(-head_dim // 32) :] = (
                rng.uniform(0.02, 0.03, (*array.shape[:-1], PAGE * -(-head_dim // 32)))
                .astype(np.float16)
                .view(np.uint16)
            )
    return kv


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
@pytest.mark.parametrize("head_dim", [16, 24, 40])
@pytest.mark.parametrize("kind", list(WORDS))
def test_what_stays_is_turned_by_the_distance_it_moves(
    n_tokens: int, n_keep: int, n_drop: int, fresh: tuple[int, ...], kind: str, head_dim: int,
    threads: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(n_tokens)
    kv = random_pages(kind, rng, head_dim)
    inv_freq = 100.0 ** (-np.arange(head_dim // 2) / head_dim)
    by_layer = np.array([inv_freq, np.zeros_like(inv_freq)])  # keys of the second do not turn
    n_after = n_tokens - n_drop
    from_pages = np.array([7, 2, 9, 4], np.int32)[: -(-n_tokens // PAGE)]
    to_pages = from_pages[: -(-n_after // PAGE)].copy()
    for i in fresh:
        if i < len(to_pages):
            to_pages[i] = 10 + i % 2
    keys, values = read_pages(kv, from_pages, n_tokens, head_dim)
    untouched = [p for p in range(N_PAGES) if p not in to_pages]
    others = kv.keys[:, untouched].copy(), kv.values[:, untouched].copy()
    with Team(threads) as team:
        shift_keys(
            team.state,
            kv.keys,
            kv.values,
            from_pages,
            to_pages,
            n_keep,
            n_drop,
            n_after,
            by_layer,
            head_dim,
        )
    new_keys, new_values = read_pages(kv, to_pages, n_after, head_dim)
    assert np.array_equal(new_keys[:, :n_keep], keys[:, :n_keep])
    moved = keys[:, n_keep + n_drop :]
    want = np.stack([turned_back(moved[0], inv_freq, n_drop), moved[1]])
    # Half floats below 8 are 2^-8 apart; a step of 8 bits is 1 / 127 of the largest of its block,
    # which is at most 127 x 0.03 x sqrt(2), and its scale is rounded too.
    tolerance = {"f16": 4e-3, "f32": 1e-6, "q8_0": 5.4 * (0.5 / 127 + 2.0**-11)}[kind]
    assert np.abs(new_keys[:, n_keep:] - want).max() < tolerance
    gone = np.s_[n_keep : n_keep + n_drop]
    assert np.array_equal(new_values, np.delete(values, gone, axis=1))
    assert np.array_equal(kv.keys[:, untouched], others[0])
    assert np.array_equal(kv.values[:, untouched], others[1])
