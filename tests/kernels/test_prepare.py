"""Rows that ranks exchange are laid out with the bits that they have where they were made."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.norms import add_norm
from kernels.prepare import activations, pack_quants, prepare, unpack_quants, wire_words
from kernels.weights.layout import Activations, Needs

QUANTS = Needs(quants=True)
EVERY = Needs(True, True, True)
NO_NORM = np.zeros(0, np.float32)


def filled(n_tokens: int, cols: int, seed: int) -> Activations:
    a = activations(n_tokens, cols)
    rng = np.random.default_rng(seed)
    a.rows[:] = rng.standard_normal((n_tokens, cols)) * np.exp2(
        rng.integers(-20, 20, (n_tokens, 1))
    )
    a.rows[n_tokens // 2, :32] = 0
    return a


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_tokens=st.sampled_from([1, 2, 7, 8, 95, 96, 171, 200]))
def test_quants_of_any_rows_travel(team: np.ndarray, data: st.DataObject, n_tokens: int) -> None:
    cols = data.draw(st.sampled_from([32, 96]))
    edge = data.draw(st.integers(0, n_tokens))
    here, wire = filled(n_tokens, cols, edge), np.zeros((n_tokens, wire_words(cols)), np.float32)
    prepare(team, here, n_tokens, QUANTS)
    there = activations(n_tokens, cols)
    for part in ((0, edge), (edge, n_tokens)):
        pack_quants(team, here, n_tokens, part, wire)
        unpack_quants(team, wire, there, n_tokens, part)
    for name in ("quants", "scales", "sums", "weighted"):
        assert getattr(here, name).tobytes() == getattr(there, name).tobytes(), name


def test_the_wire_holds_quants_and_scales_row_by_row(team: np.ndarray) -> None:
    """Not as this processor's kernels read them: other nodes may have another one."""
    for n_tokens in (5, 120):
        a, wire = filled(n_tokens, 64, 1), np.zeros((n_tokens, wire_words(64)), np.float32)
        prepare(team, a, n_tokens, QUANTS)
        pack_quants(team, a, n_tokens, (0, n_tokens), wire)
        quants, scales = wire[:, :16].copy().view(np.int8), wire[:, 16:]
        blocks = a.rows.reshape(n_tokens, 2, 32)
        assert np.array_equal(scales, np.abs(blocks).max(2) / np.float32(127))
        values = quants.reshape(blocks.shape) * scales[..., None].astype(np.float64)
        assert (np.abs(values - blocks) <= scales[..., None] * 0.501).all()


@pytest.mark.parametrize("n_tokens", [1, 9, 64, 97])
@pytest.mark.parametrize("needs", [QUANTS, EVERY], ids=["quants", "every form"])
def test_parts_of_the_rows_are_normed_as_all_are(
    team: np.ndarray, n_tokens: int, needs: Needs
) -> None:
    weight = np.linspace(0.5, 2, 96).astype(np.float32)
    x, delta = np.random.default_rng(2).standard_normal((2, n_tokens, 96)).astype(np.float32)
    edges = [0, n_tokens // 3, n_tokens // 2, n_tokens]
    whole, parts = activations(n_tokens, 96), activations(n_tokens, 96)
    xs = x.copy(), x.copy()
    add_norm(team, xs[0], delta, NO_NORM, weight, 1e-5, whole, n_tokens, needs)
    for own in pairwise(edges):
        before = xs[1].copy()
        add_norm(team, xs[1], delta, NO_NORM, weight, 1e-5, parts, n_tokens, needs, own)
        others = np.r_[0 : own[0], own[1] : n_tokens]
        assert np.array_equal(xs[1][others], before[others])
    assert np.array_equal(xs[0], xs[1])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, parts, strict=True))


def test_a_part_of_the_buffers_is_in_the_same_memory(team: np.ndarray) -> None:
    a, alone = filled(12, 96, 3), activations(5, 96)
    part = a.part(7)
    alone.rows[:] = part.rows
    prepare(team, part, 5, EVERY)
    prepare(team, alone, 5, EVERY)
    assert np.shares_memory(part.quants, a.quants) and len(part.rows) == 5
    assert all(b.tobytes() == c.tobytes() for b, c in zip(part, alone, strict=True))


@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 15, 16, 31])
def test_what_is_no_number_is_told_by_its_block(team: np.ndarray, odd: float, place: int) -> None:
    """Whatever the other numbers are: a product with it is none either."""
    a = filled(1, 96, 3)
    a.rows[0, 32 + place] = odd
    prepare(team, a, 1, QUANTS)
    assert np.isfinite(a.scales).tolist() == [True, False, True]
    assert np.isfinite(a.weighted.reshape(3, 3)).all(axis=1).tolist() == [True, False, True]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_a_scale_is_that_of_the_largest_number(team: np.ndarray, seed: int) -> None:
    a = filled(8, 96, seed)
    prepare(team, a, 8, QUANTS)
    tops = np.abs(a.rows).reshape(8, 3, 32).max(axis=2)
    assert np.array_equal(np.sort(a.scales), np.sort((tops / np.float32(127)).ravel()))
