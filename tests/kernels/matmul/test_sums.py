"""Exact sums over columns: whole and cut they have the same bits, which are those of the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.formats import ALL_TYPES, format_of
from kernels.kernel import kind_of
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import QUANTUM, FixedSums
from kernels.program import recording
from kernels.weights.packing import pack
from kernels.wire.fixed import add_fixed
from tests.fixed_sums import fixed_sums, values_of
from tests.kernels.matmul.test_multiply import _input
from tests.kernels.weights.random_weights import weights

ROWS, COLS = 40, 1024
CUTS = {
    256: [0, 256, 768, 1024], 128: [0, 128, 640, 1024], 64: [0, 192, 256, 1024],
    32: [0, 32, 480, 1024],
}  # fmt: skip


def rounded(team, w, x, unit: int) -> np.ndarray:
    out = np.full((len(x), 48), np.nan, np.float32)
    matmul(team, w, _input(team, x), len(x), out, unit=unit)
    return out


def fixed(team, w, x, unit: int) -> FixedSums:
    sums = FixedSums.zeros(len(x), 48)
    sums.low[:], sums.wide[:] = 77, 1
    matmul(team, w, _input(team, x), len(x), sums, unit=unit)
    return sums


def added(parts: list[FixedSums]) -> np.ndarray:
    out = np.empty(parts[0].low.shape, np.float32)
    add_fixed(parts, out)
    return out


def cut(raw: np.ndarray, fmt: str, begin: int, end: int) -> np.ndarray:
    """The columns of raw rows, outward to whole blocks of the file."""
    per_row = raw.shape[1]
    return np.ascontiguousarray(raw[:, per_row * begin // COLS : per_row * end // COLS])


@pytest.mark.parametrize("unit", CUTS)
@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_a_cut_between_units_changes_no_bit(team: np.ndarray, fmt: str, unit: int) -> None:
    """Also where a cut falls inside a block of the file: each part has its own columns of it, and
    gets an input of these alone."""
    raw, _ = weights(fmt, ROWS, COLS)
    raw = raw.reshape(ROWS, -1)
    whole = pack(team, fmt, [raw], COLS)
    block = max(32, format_of(fmt).layout.values)
    for n_tokens in (1, 7, 100):
        x = np.random.default_rng(n_tokens).standard_normal((n_tokens, COLS)).astype(np.float32)
        want = rounded(team, whole, x, unit)
        parts = []
        for begin, end in zip(CUTS[unit], CUTS[unit][1:], strict=False):
            outer = begin // block * block, -(-end // block) * block
            own = range(begin - outer[0], end - outer[0])
            part = pack(team, fmt, [cut(raw, fmt, *outer)], outer[1] - outer[0], own)
            parts.append(fixed(team, part, np.ascontiguousarray(x[:, begin:end]), unit))
        assert np.array_equal(added(parts), want)
        assert np.array_equal(added([parts[2], parts[0], parts[1]]), want)
        assert np.array_equal(added([fixed(team, whole, x, unit)]), want)


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_one_machine_code_writes_all_kinds_of_sums(team: np.ndarray, fmt: str) -> None:
    """A second one of each type would double the time to compile them."""
    raw, _ = weights(fmt, ROWS, 256)
    w = pack(team, fmt, [raw], 256)
    for n_tokens in (1, 100):
        x = np.ones((n_tokens, 256), np.float32)
        with recording() as calls:
            matmul(team, w, _input(team, x), n_tokens, np.zeros((n_tokens, 48), np.float32))
            rounded(team, w, x, 64)
            fixed(team, w, x, 64)
        plain, *exact = [(c.kernel, kind_of(c.args)) for c in calls if "team." in c.kernel.name]
        assert exact == [plain] * 2


@pytest.mark.parametrize("fmt", ["f32", "q4_0", "q6_k"])
def test_sums_are_those_of_units_rounded_to_the_quantum(team: np.ndarray, fmt: str) -> None:
    raw, _ = weights(fmt, ROWS, COLS)
    w = pack(team, fmt, [raw], COLS)
    x = np.random.default_rng(1).standard_normal((9, COLS)).astype(np.float32)
    total = np.zeros((9, 48))
    for begin in range(0, COLS, 256):
        only = np.zeros_like(x)
        only[:, begin : begin + 256] = x[:, begin : begin + 256]
        out = np.zeros((9, 48), np.float32)
        matmul(team, w, _input(team, only), 9, out)
        total += np.rint(out.astype(np.float64) / QUANTUM) * QUANTUM
    assert np.array_equal(values_of(fixed(team, w, x, 256)), total)
    assert np.array_equal(rounded(team, w, x, 256), total.astype(np.float32))


def test_large_sums_and_what_is_no_number_keep_their_place(team: np.ndarray) -> None:
    """Sums from 128 on need more than 32 bits; beyond 2^23, and from NaN, there is no number."""
    x = np.ones((9, 64), np.float32)
    raw = np.zeros((48, 64), np.float32)
    raw[:, 0] = np.arange(48)
    raw[3, 1], raw[17, 1], raw[18, 1] = 1e5, np.nan, -np.inf
    raw[40] = 1e8
    w = pack(team, "f32", [raw.view(np.uint8)], 64)
    values = values_of(fixed(team, w, x, 16))
    out = added([fixed(team, w, x, 16)] * 2)
    for row in range(48):
        is_none = row in (17, 18, 40)
        want = np.nan if is_none else raw[row].sum()
        np.testing.assert_array_equal(values[:, row], want)
        np.testing.assert_array_equal(out[:, row], 2 * want)
        np.testing.assert_array_equal(rounded(team, w, x, 16)[:, row], want)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.floats(-20, 22),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_sums_of_ranks_are_exact_in_any_order(
    n_ranks: int, n_rows: int, n_groups: int, exponent: float, seed: int
) -> None:
    """Of any size: those that fit 32 bits, those that do not, and both side by side."""
    rng = np.random.default_rng(seed)
    shape = (n_ranks, n_rows, 16 * n_groups)
    xs = rng.standard_normal(shape) * 2.0**exponent * 2.0 ** rng.integers(-12, 1, shape)
    xs = np.clip(xs, -(2.0**22), 2.0**22)
    exact = (np.rint(xs / QUANTUM) * QUANTUM).sum(axis=0)
    parts = [fixed_sums(x) for x in xs]
    assert all(np.array_equal(values_of(p), np.rint(x / QUANTUM) * QUANTUM)
               for p, x in zip(parts, xs, strict=True))  # fmt: skip
    order = rng.permutation(n_ranks)
    assert np.array_equal(added([parts[i] for i in order]), exact.astype(np.float32))
