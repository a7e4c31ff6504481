"""The choice of experts and the deal of slots, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.routing import Routes, route, routes

N_EXPERTS, N_ACTIVE = 20, 5


def routed(
    team: np.ndarray, logits: np.ndarray, *, n_experts: int = N_EXPERTS, n_active: int = N_ACTIVE,
    is_normalized: bool = True, scale: float = 1.0, has_shared: bool = False,
) -> Routes:  # fmt: skip
    found = routes(len(logits) + 2, n_experts, n_active, has_shared)
    route(team, logits, len(logits), found, is_normalized=is_normalized, scale=scale)
    return found


def random_logits(n_rows: int, width: int = N_EXPERTS) -> np.ndarray:
    return np.random.default_rng(n_rows).standard_normal((n_rows, width)).astype(np.float32)


@pytest.mark.parametrize("n_rows", [1, 3, 8, 61])
@pytest.mark.parametrize(("is_normalized", "scale"), [(True, 1.0), (False, 1.0), (True, 2.5)])
def test_rows_take_their_best_experts(
    team: np.ndarray, n_rows: int, is_normalized: bool, scale: float
) -> None:
    logits = random_logits(n_rows)
    found = routed(team, logits, is_normalized=is_normalized, scale=scale)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :N_ACTIVE]
    assert np.array_equal(found.chosen[:n_rows], best)
    chances = np.exp(logits.astype(np.float64))
    chances /= chances.sum(axis=1, keepdims=True)
    chances = np.take_along_axis(chances, best, axis=1)
    if is_normalized:
        chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.chances[:n_rows], scale * chances, rtol=1e-5)


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
    route(team, logits, 7, found, is_normalized=True, scale=1.0, bias=bias)
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
    found = routed(team, logits, has_shared=True)
    assert found.chosen.max() < N_EXPERTS
    assert found.shared.tolist() == [[1, 9, 0], [0, 0, 9]]
    wanted = 1 / (1 + np.exp(-logits[:, N_EXPERTS].astype(np.float64)))
    np.testing.assert_allclose(found.shared_weights[:9], wanted, rtol=1e-5)
    assert np.array_equal(found.slots[:9, N_ACTIVE], found.first_shared + np.arange(9))


def test_a_step_leaves_nothing_for_the_next(team: np.ndarray) -> None:
    found = routes(40, N_EXPERTS, N_ACTIVE, has_shared=False)
    for n_rows in (40, 2):
        route(team, random_logits(n_rows), n_rows, found, is_normalized=True, scale=1.0)
    alone = routed(team, random_logits(2))
    n_batches = alone.table[0, 0]
    assert np.array_equal(found.table[: n_batches + 1], alone.table[: n_batches + 1])
    assert np.array_equal(found.slots[:2], alone.slots[:2])
