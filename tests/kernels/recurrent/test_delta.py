"""Gated delta nets against their definition in float64, and what no result may depend on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kernels.recurrent.convolution import convolution
from kernels.recurrent.delta import DeltaWeights, delta_net
from kernels.recurrent.states import DeltaStates, Slots, delta_states, state_values

KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, KERNEL = 2, 4, 6, 80, 4
CHANNELS = 2 * KEY_HEADS * KEY_DIM + VALUE_HEADS * VALUE_DIM
VALUES = VALUE_HEADS * VALUE_DIM
WIDTH = CHANNELS + VALUES + 2 * VALUE_HEADS
N_SLOTS, EPSILON = 7, 1e-6

rng = np.random.default_rng(4)
CONV = (rng.standard_normal((KERNEL, CHANNELS)) / 2).astype(np.float32)
WEIGHTS = DeltaWeights(
    -np.exp(rng.uniform(-3, 1, VALUE_HEADS)).astype(np.float32),
    rng.standard_normal(VALUE_HEADS).astype(np.float32),
    (1 + 0.1 * rng.standard_normal(VALUE_DIM)).astype(np.float32),
)


def rows_of(n: int, seed: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)
    return rows


def states_of(n_threads: int = 2) -> DeltaStates:
    """Whose slots hold what an earlier sequence may have left there."""
    states = delta_states(
        1, N_SLOTS, (KEY_HEADS, VALUE_HEADS), (KEY_DIM, VALUE_DIM), KERNEL - 1, n_threads
    )
    states.tails[:], states.matrices[:] = 1e3, 1e3
    return states


def computed(
    team: np.ndarray, chunks: list[tuple[np.ndarray, int]], states: DeltaStates,
    slots: list[tuple[int, int]], copies: dict[int, int] | None = None, bundle: int = 1,
    pairs_gates: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    """The results of sequences' rows, of which each has a first position."""
    x = np.concatenate([rows for rows, _ in chunks])
    lengths = [len(rows) for rows, _ in chunks]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([at + np.arange(len(rows)) for rows, at in chunks]).astype(np.int32)
    kept = np.full(len(x), -1, np.int32)
    for row, slot in (copies or {}).items():
        kept[row] = slot
    sources, targets = np.array(slots, np.int32).T.copy()
    where, out = Slots(sources, targets, kept), np.zeros((len(x), VALUES), np.float32)
    convolution(team, x, starts, positions, where, CONV, states, 0)
    delta_net(
        team, x, starts, positions, where, WEIGHTS, states, 0, bundle, pairs_gates, EPSILON, out
    )
    return np.split(out, starts[1:-1])


def reference(rows: np.ndarray, bundle: int = 1) -> np.ndarray:
    """The definition: every row by itself, in float64."""
    x = rows.astype(np.float64)
    padded = np.concatenate([np.zeros((KERNEL - 1, CHANNELS)), x[:, :CHANNELS]])
    mixed = sum(padded[i : i + len(x)] * CONV[i].astype(np.float64) for i in range(KERNEL))
    mixed = mixed / (1 + np.exp(-mixed))
    q, k, v = np.split(mixed, [KEY_HEADS * KEY_DIM, 2 * KEY_HEADS * KEY_DIM], axis=1)
    q, k = (a.reshape(len(x), KEY_HEADS, KEY_DIM) for a in (q, k))
    q, k = (a / np.sqrt((a * a).sum(-1, keepdims=True) + 1e-6) for a in (q, k))
    v = v.reshape(len(x), VALUE_HEADS, VALUE_DIM)
    z = x[:, CHANNELS : CHANNELS + VALUES].reshape(v.shape)
    beta, alpha = np.split(x[:, CHANNELS + VALUES :], 2, axis=1)
    decay = np.exp(WEIGHTS.decay * np.log1p(np.exp(alpha + WEIGHTS.shift)))
    shared = VALUE_HEADS // KEY_HEADS
    out = np.zeros(v.shape)
    for h in range(VALUE_HEADS):
        state, key_head = (
            np.zeros((KEY_DIM, VALUE_DIM)),
            h // (bundle * shared) * bundle + h % bundle,
        )
        for t in range(len(x)):
            state = state * decay[t, h]
            known = k[t, key_head] @ state
            added = (v[t, h] - known) / (1 + np.exp(-beta[t, h]))
            state = state + np.outer(k[t, key_head], added)
            out[t, h] = q[t, key_head] @ state / np.sqrt(KEY_DIM)
    out /= np.sqrt((out * out).mean(-1, keepdims=True) + EPSILON)
    return (out * WEIGHTS.norm * z / (1 + np.exp(-z))).reshape(len(x), -1)


@pytest.mark.parametrize("bundle", [1, 2])
def test_rows_are_as_defined(team: np.ndarray, bundle: int) -> None:
    """Value heads beside those of the same key head, or of the next one."""
    rows = rows_of(50, 1)
    [found] = computed(team, [(rows, 0)], states_of(), [(0, 0)], bundle=bundle)
    np.testing.assert_allclose(found, reference(rows, bundle), rtol=2e-4, atol=2e-5)
    other = reference(rows, 3 - bundle)
    assert np.abs(found - other).max() > 0.1, "the order of heads matters"


def test_betas_may_stand_beside_their_alphas(team: np.ndarray) -> None:
    """Those of a key head's value heads."""
    rows = rows_of(20, 1)
    [wanted] = computed(team, [(rows, 0)], states_of(), [(0, 0)])
    other, gates = rows.copy(), rows[:, CHANNELS + VALUES :].reshape(20, 2, KEY_HEADS, -1)
    other[:, CHANNELS + VALUES :] = gates.transpose(0, 2, 1, 3).reshape(20, -1)
    [found] = computed(team, [(other, 0)], states_of(), [(0, 0)], pairs_gates=True)
    assert np.array_equal(found, wanted)


def test_chunks_and_batches_change_nothing(team: np.ndarray) -> None:
    one, other = rows_of(40, 2), rows_of(23, 3)
    [whole] = computed(team, [(one, 0)], states_of(), [(3, 3)])
    [alone] = computed(team, [(other, 0)], states_of(), [(3, 3)])
    for cuts in ([0, 1, 2, 40], [0, 17, 18, 21, 40], list(range(41))):
        states = states_of()
        found = [computed(team, [(one[a:b], a)], states, [(2, 2)])[0] for a, b in pairwise(cuts)]
        assert np.array_equal(np.concatenate(found), whole)
    states = states_of()
    first = computed(team, [(one[:30], 0), (other[:5], 0)], states, [(1, 1), (4, 4)])
    rest = computed(team, [(other[5:], 5), (one[30:], 30)], states, [(4, 4), (1, 1)])
    assert np.array_equal(np.concatenate([first[0], rest[1]]), whole)
    assert np.array_equal(np.concatenate([first[1], rest[0]]), alone)


def test_a_state_is_read_from_one_slot_and_left_in_another(team: np.ndarray) -> None:
    """So several sequences go on from one state, at once and later."""
    rows, branch = rows_of(30, 5), rows_of(30, 6)
    branch[:20] = rows[:20]
    [whole] = computed(team, [(rows, 0)], states_of(), [(0, 0)])
    [other] = computed(team, [(branch, 0)], states_of(), [(0, 0)])
    states = states_of()
    computed(team, [(rows[:20], 0)], states, [(5, 0)])
    both = computed(team, [(rows[20:], 20), (branch[20:], 20)], states, [(0, 1), (0, 2)])
    assert np.array_equal(both[0], whole[20:]) and np.array_equal(both[1], other[20:])
    [again] = computed(team, [(branch[20:], 20)], states, [(0, 3)])
    assert np.array_equal(again, other[20:])


def test_copies_hold_the_state_after_their_rows(team: np.ndarray) -> None:
    """Of any row, the first ones too, whose convolution reads what came before the step."""
    rows, beside = rows_of(30, 7), rows_of(4, 8)
    [whole] = computed(team, [(rows, 0)], states_of(), [(0, 0)])
    states = states_of()
    computed(team, [(rows[:10], 0), (beside, 0)], states, [(0, 0), (6, 6)], {9: 1, 13: 5})
    computed(team, [(beside, 0), (rows[10:], 10)], states, [(6, 6), (0, 0)], {4: 2, 6: 3, 23: 4})
    for n, slot in ((10, 1), (11, 2), (13, 3), (30, 4)):
        [found] = computed(team, [(rows[n - 1 :], n)], states, [(slot, 6)])
        [wanted] = computed(
            team, [(np.concatenate([rows[:n], rows[n - 1 :]]), 0)], states_of(), [(0, 0)]
        )
        assert np.array_equal(found, wanted[n:]), n
    [left] = computed(team, [(rows[:1], 30)], states, [(0, 0)])
    [kept] = computed(team, [(rows[:1], 30)], states, [(4, 4)])
    assert np.array_equal(left, kept) and np.array_equal(whole, whole)


def test_the_size_of_a_state() -> None:
    states = states_of()
    one = state_values((KEY_HEADS, VALUE_HEADS), (KEY_DIM, VALUE_DIM), KERNEL - 1)
    assert (states.tails.size + states.matrices.size) == N_SLOTS * one
