"""The choice of experts and the deal of slots, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.routing import NO_BIAS, Router, Routes, route, routes

N_EXPERTS, N_ACTIVE = 20, 5
PLAIN = Router()


def routed(
    team: np.ndarray, logits: np.ndarray, router: Router = PLAIN, *,
    choice_bias: np.ndarray = NO_BIAS, n_groups: int = 1, has_shared: bool = False,
    has_shared_gate: bool = False,
) -> Routes:  # fmt: skip
    found = routes(len(logits) + 2, N_EXPERTS, N_ACTIVE, has_shared=has_shared, n_groups=n_groups)
    route(
        team, logits, len(logits), found, router, choice_bias=choice_bias,
        has_shared_gate=has_shared_gate,
    )  # fmt: skip
    return found


def random_logits(n_rows: int, width: int = N_EXPERTS) -> np.ndarray:
    return np.random.default_rng(n_rows).standard_normal((n_rows, width)).astype(np.float32)


@pytest.mark.parametrize("n_rows", [1, 3, 8, 61])
@pytest.mark.parametrize(("is_normalized", "scale"), [(True, 1.0), (False, 1.0), (True, 2.5)])
def test_rows_take_their_best_experts(
    team: np.ndarray, n_rows: int, is_normalized: bool, scale: float
) -> None:
    logits = random_logits(n_rows)
    found = routed(team, logits, Router(is_normalized=is_normalized, scale=scale))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :N_ACTIVE]
    assert np.array_equal(found.chosen[:n_rows], best)
    chances = np.exp(logits.astype(np.float64))
    chances /= chances.sum(axis=1, keepdims=True)
    chances = np.take_along_axis(chances, best, axis=1)
    if is_normalized:
        chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.chances[:n_rows], scale * chances, rtol=1e-5)


@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("is_sigmoid", [True, False])
@pytest.mark.parametrize(("n_groups", "n_active_groups"), [(1, 1), (5, 2), (4, 3), (20, 6)])
def test_rows_take_the_best_experts_of_the_best_groups(
    team: np.ndarray, is_normalized: bool, is_sigmoid: bool, n_groups: int, n_active_groups: int
) -> None:
    """The bias chooses experts, and weighs none."""
    logits = random_logits(61)
    bias = np.random.default_rng(4).uniform(-1, 1, N_EXPERTS).astype(np.float32)
    router = Router(is_sigmoid, is_normalized, 2.5, n_active_groups)
    found = routed(team, logits, router, choice_bias=bias, n_groups=n_groups)
    wide = logits.astype(np.float64)
    softmax = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    chances = 1 / (1 + np.exp(-wide)) if is_sigmoid else softmax
    scores = (chances if is_sigmoid else wide) + bias
    groups = scores.reshape(len(logits), n_groups, -1)
    n_best = 2 if is_sigmoid else 1
    worth = np.sort(groups, axis=2)[:, :, -n_best:].sum(axis=2)
    for row, best in enumerate(np.argsort(-worth, axis=1)):
        groups[row, best[n_active_groups:]] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :N_ACTIVE]
    assert np.array_equal(found.chosen[: len(logits)], best)
    weights = np.take_along_axis(chances, best, axis=1)
    if is_normalized:
        weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.chances[: len(logits)], 2.5 * weights, rtol=1e-5)


def test_of_equal_groups_the_lower_index_comes_first(team: np.ndarray) -> None:
    found = routed(
        team, np.zeros((2, N_EXPERTS), np.float32), Router(n_active_groups=2), n_groups=4
    )
    assert found.chosen[1].tolist() == [0, 1, 2, 3, 4]


def test_sigmoids_that_are_nearly_zero_weigh_something(team: np.ndarray) -> None:
    logits = np.full((1, N_EXPERTS), -1e30, np.float32)
    found = routed(team, logits, Router(is_sigmoid=True))
    assert (found.chances[0] >= 0).all() and found.chances[0].max() < 0.2


def test_sparse_mixers_weigh_each_expert_beside_those_near_it(team: np.ndarray) -> None:
    logits = np.full((2, N_EXPERTS), -9, np.float32)
    logits[0, [3, 5, 8, 11]] = 2.0, 1.98, 1.93, 1.0
    logits[1, [3, 5, 8]] = -1.0, -1.01, -1.05
    found = routed(team, logits, Router(is_sparse_mixer=True, scale=2.0))
    assert found.chosen[0].tolist()[:4] == [3, 5, 8, 11]
    near = np.exp(logits[0, 3]) / np.exp(logits[0, [3, 5]]).sum()
    np.testing.assert_allclose(found.chances[0][:4], 2 * np.array([near, 1, 1, 1]), rtol=1e-6)
    near = 1 / (1 + np.exp(np.float32(-0.01)))
    np.testing.assert_allclose(found.chances[1][:3], 2 * np.array([near, 1, 1]), rtol=1e-5)


def test_a_shared_expert_without_a_gate_has_the_weight_one(team: np.ndarray) -> None:
    found = routed(team, random_logits(9, N_EXPERTS + 12), has_shared=True)
    assert found.shared_weights[:9].tolist() == [1.0] * 9


def test_of_equal_logits_the_lower_index_comes_first(team: np.ndarray) -> None:
    logits = np.zeros((3, N_EXPERTS), np.float32)
    logits[1, [4, 9, 17]] = 1
    logits[2] = np.inf
    chosen = routed(team, logits).chosen
    assert chosen[0].tolist() == [0, 1, 2, 3, 4]
    assert chosen[1].tolist() == [4, 9, 17, 0, 1]
    assert chosen[2].tolist() == [0, 1, 2, 3, 4]


def test_biases_are_part_of_the_logits(team: np.ndarray) -> None:
    logits, bias = random_logits(7), 2 * random_logits(1)[0]
    wanted = routed(team, logits + bias)
    found = routes(9, N_EXPERTS, N_ACTIVE, has_shared=False)
    route(team, logits, 7, found, PLAIN, bias)
    for name in ("chosen", "chances"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_what_is_no_number_chooses_some_expert(team: np.ndarray) -> None:
    """Kernels index memory by it."""
    logits = random_logits(8)
    logits[3] = np.nan
    logits[5, 2:] = np.nan
    chosen = routed(team, logits).chosen
    assert chosen.min() >= 0 and chosen.max() < N_EXPERTS
    assert np.array_equal(chosen[0], np.argsort(-logits[0], kind="stable")[:N_ACTIVE])


@pytest.mark.parametrize("n_rows", [1, 7, 64])
def test_every_slot_belongs_to_one_row_and_expert(team: np.ndarray, n_rows: int) -> None:
    found = routed(team, random_logits(n_rows))
    n_slots = n_rows * N_ACTIVE
    slots = found.slots[:n_rows]
    assert sorted(slots.reshape(-1).tolist()) == list(range(n_slots))
    for t in range(n_rows):
        assert (found.rows[slots[t]] == t).all()
        assert np.array_equal(found.weights[slots[t]], found.chances[t])
    n_batches, most, _ = found.table[0]
    batches = found.table[1 : n_batches + 1]
    assert most == batches[:, 2].max()
    assert (np.diff(batches[:, 0]) > 0).all() and (batches[:, 2] > 0).all()
    ends = batches[:, 1] + batches[:, 2]
    assert batches[0, 1] == 0 and ends[-1] == n_slots and np.array_equal(batches[1:, 1], ends[:-1])
    for expert, first, count in batches:
        rows = found.rows[first : first + count]
        assert (np.diff(rows) > 0).all()
        for slot, row in enumerate(rows, start=first):
            at = found.slots[row].tolist().index(slot)
            assert found.chosen[row, at] == expert


def test_all_rows_take_the_shared_expert(team: np.ndarray) -> None:
    logits = random_logits(9, N_EXPERTS + 12)
    found = routed(team, logits, has_shared=True, has_shared_gate=True)
    assert found.chosen.max() < N_EXPERTS
    assert found.shared.tolist() == [[1, 9, 0], [0, 0, 9]]
    wanted = 1 / (1 + np.exp(-logits[:, N_EXPERTS].astype(np.float64)))
    np.testing.assert_allclose(found.shared_weights[:9], wanted, rtol=1e-5)
    assert np.array_equal(found.slots[:9, N_ACTIVE], found.first_shared + np.arange(9))


def test_a_step_leaves_nothing_for_the_next(team: np.ndarray) -> None:
    found = routes(40, N_EXPERTS, N_ACTIVE, has_shared=False)
    for n_rows in (40, 2):
        route(team, random_logits(n_rows), n_rows, found, Router())
    alone = routed(team, random_logits(2))
    n_batches = alone.table[0, 0]
    assert np.array_equal(found.table[: n_batches + 1], alone.table[: n_batches + 1])
    assert np.array_equal(found.slots[:2], alone.slots[:2])
