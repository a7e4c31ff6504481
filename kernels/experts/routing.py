"""Which experts each row of a step takes, with which weights, and which rows each expert gets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.arrays import aligned
from kernels.emit.exponential import exp_f32
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.team import claim, region

ROWS_AT_ONCE = 4  # of which a thread chooses the experts: they share cache lines
NONE = np.float32(-np.inf)  # the score of an expert that a row may not take
SMALLEST_TOTAL = np.float32(1e-20)  # of sigmoids, which may all be zero
MIXED_PART = np.float32(0.02)  # twice the noise that SparseMixer is trained with


class Router(NamedTuple):
    """How the experts of a row are chosen and weighed by its logits.

    A weight is the softmax over all experts, or over the chosen ones where `is_normalized`. With
    `is_sigmoid` it is the sigmoid of the logit, where `is_normalized` divided by the sum of those
    chosen. All weights are multiplied by `scale`.

    Where the experts are groups of neighbours (`routes`), a row takes those of the
    `n_active_groups` with the best expert; of sigmoids with the best two experts together.

    With `is_sparse_mixer` (arXiv:2409.12136) a weight is the softmax among those of the experts
    that were not chosen before, whose logits are near the chosen one's.
    """

    is_sigmoid: bool = False
    is_normalized: bool = True
    scale: float = 1.0
    n_active_groups: int = 1
    is_sparse_mixer: bool = False


NO_BIAS = np.zeros(0, np.float32)


class Routes(NamedTuple):
    """The experts of a step's rows. Each row takes k of E experts and so has k slots; the slots of
    an expert follow one another, in the order of their rows. T rows have S = k T slots. Where there
    is a shared expert, which all rows take, each row has one more slot after all those.

    `table` has a batch for each expert that any row takes (kernels/matmul/batches.py); `shared` is
    such a table too, with one batch of all rows.
    """

    chosen: np.ndarray  # (T, k) int32: the experts of a row, the largest weight first
    chances: np.ndarray  # (T, k) float32: their weights
    slots: np.ndarray  # (T, k) int32: their slots; (T, k + 1) with a shared expert
    rows: np.ndarray  # (S,) int32: the row of a slot
    weights: np.ndarray  # (S,) float32: the weight of a slot
    table: np.ndarray  # (E + 1, 3) int32
    shared: np.ndarray  # (2, 3) int32
    shared_weights: np.ndarray  # (T,) float32: those of the shared expert; 1 without a gate
    next: np.ndarray  # (E,) int32: scratch
    scores: np.ndarray  # (T, E) float32: by which the experts of a row are chosen
    group_scores: np.ndarray  # (T, groups) float32

    @property
    def first_shared(self) -> int:
        """The shared expert's slot of the first row."""
        return len(self.rows)


def routes(
    max_rows: int, n_experts: int, n_active: int, *, has_shared: bool, n_groups: int = 1
) -> Routes:
    """Returns buffers for steps of up to max_rows rows, which take n_active experts each, of
    experts in n_groups groups of one size, and the shared one."""
    return Routes(
        chosen=aligned((max_rows, n_active), np.int32),
        chances=aligned((max_rows, n_active), np.float32),
        slots=aligned((max_rows, n_active + has_shared), np.int32),
        rows=aligned(max_rows * n_active, np.int32),
        weights=aligned(max_rows * n_active, np.float32),
        table=aligned((n_experts + 1, 3), np.int32),
        shared=aligned((2, 3), np.int32),
        shared_weights=np.ones(max_rows, np.float32),
        next=aligned(n_experts, np.int32),
        scores=aligned((max_rows, n_experts), np.float32),
        group_scores=aligned((max_rows, n_groups), np.float32),
    )


@jitted
def _sigmoid(x):
    return np.float32(1) / (np.float32(1) + exp_f32(-x))


@jitted
def _score(logits, bias, is_sigmoid, scores):
    """The scores of experts by their logits, with the bias where there is one."""
    for index in range(logits.size):
        scores[index] = _sigmoid(logits[index]) if is_sigmoid else logits[index]
    for index in range(bias.size):
        scores[index] += bias[index]


@jitted
def _keep_best_groups(scores, group_scores, n_active, is_sigmoid):
    """Takes the scores of experts away that are not in one of the best groups; of equal groups the
    lower index is better."""
    n_groups = group_scores.size
    size = scores.size // n_groups
    for group in range(n_groups):
        best, second = NONE, NONE
        for index in range(group * size, (group + 1) * size):
            x = scores[index]
            if x > best:
                best, second = x, best
            elif x > second:
                second = x
        group_scores[group] = best + second if is_sigmoid and size > 1 else best
    for group in range(n_groups):
        n_better, mine = 0, group_scores[group]
        for other in range(n_groups):
            its = group_scores[other]
            if its > mine or (its == mine and other < group):
                n_better += 1
        if n_better >= n_active:
            for index in range(group * size, (group + 1) * size):
                scores[index] = NONE


@jitted
def _choose(scores, chosen):
    """The indices of the largest scores, the largest first; of equal ones the lower index first."""
    last, last_index = np.float32(np.inf), -1
    for i in range(chosen.size):
        best, best_index = np.float32(0), -1
        for index in range(scores.size):
            x = scores[index]
            is_left = x < last or (x == last and index > last_index)
            if is_left and (best_index < 0 or x > best):
                best, best_index = x, index
        # Where numbers are none, any expert will do: the sum will be none either.
        last, last_index = best, best_index if best_index >= 0 else i
        chosen[i] = last_index


@jitted
def _weigh(logits, chosen, is_normalized, scale, chances):
    """The softmax of the chosen logits, among all logits or among the chosen ones, times scale."""
    top, total = logits[chosen[0]], np.float32(0)
    for i in range(chosen.size):
        chances[i] = exp_f32(logits[chosen[i]] - top)
    if is_normalized:
        for i in range(chosen.size):
            total += chances[i]
    else:
        for index in range(logits.size):
            total += exp_f32(logits[index] - top)
    for i in range(chosen.size):
        chances[i] = chances[i] / total * scale


@jitted
def _weigh_sigmoids(logits, chosen, is_normalized, scale, chances):
    """The sigmoids of the chosen logits, or their shares of the sum of all chosen ones, times
    scale."""
    total = SMALLEST_TOTAL
    for i in range(chosen.size):
        chances[i] = _sigmoid(logits[chosen[i]])
        total += chances[i]
    for i in range(chosen.size):
        share = chances[i] / total if is_normalized else chances[i]
        chances[i] = share * scale


@jitted
def _weigh_sparsely(logits, chosen, scale, chances):
    """For each of the chosen experts the softmax of its logit among those that are near it, of the
    experts not chosen before it, times scale."""
    for i in range(chosen.size):
        top, total = logits[chosen[i]], np.float32(0)
        for index in range(logits.size):
            x = logits[index]
            is_far = top - x > MIXED_PART * max(abs(x), top)
            n_times = 0  # that it was chosen before
            for before in range(i):
                n_times += chosen[before] == index
            if not is_far and n_times == 0:
                total += exp_f32(x - top)
        chances[i] = scale / total


@region
def _choose_rows(thread, team, logits, n_rows, n_experts, how, biases, routes):
    is_sigmoid, is_normalized, scale, n_active_groups, is_sparse_mixer, has_shared_gate = how
    bias, choice_bias = biases
    chosen, chances, shared_weights = routes[0], routes[1], routes[7]
    scores, group_scores = routes[9], routes[10]
    while True:
        first = claim(team, ROWS_AT_ONCE)
        if first >= n_rows:
            return
        for t in range(first, min(first + ROWS_AT_ONCE, n_rows)):
            row = logits[t, :n_experts]
            for e in range(bias.size):
                row[e] += bias[e]
            # Where nothing is added to sigmoids, logits choose the same, and saturate nowhere.
            adds_up = choice_bias.size > 0 or group_scores.shape[1] > 1
            _score(row, choice_bias, is_sigmoid and adds_up, scores[t])
            if group_scores.shape[1] > 1:
                _keep_best_groups(scores[t], group_scores[t], n_active_groups, is_sigmoid)
            _choose(scores[t], chosen[t])
            if is_sparse_mixer:
                _weigh_sparsely(row, chosen[t], scale, chances[t])
            elif is_sigmoid:
                _weigh_sigmoids(row, chosen[t], is_normalized, scale, chances[t])
            else:
                _weigh(row, chosen[t], is_normalized, scale, chances[t])
            if has_shared_gate:
                shared_weights[t] = _sigmoid(logits[t, n_experts])


@jitted
def _deal(n_rows, routes):
    """Deals slots to rows, expert by expert: a counting sort."""
    chosen, chances, slots, rows, weights, table, _, _, following, _, _ = routes
    n_chosen = chosen.shape[1]
    following[:] = 0
    for t in range(n_rows):
        for i in range(n_chosen):
            following[chosen[t, i]] += 1
    n_batches, begin, largest = 0, 0, 0
    for expert in range(following.size):
        count = following[expert]
        following[expert] = begin
        if count > 0:
            n_batches += 1
            table[n_batches, 0], table[n_batches, 1], table[n_batches, 2] = expert, begin, count
            begin, largest = begin + count, max(largest, count)
    table[0, 0], table[0, 1] = n_batches, largest
    for t in range(n_rows):
        for i in range(n_chosen):
            slot = following[chosen[t, i]]
            following[chosen[t, i]] += 1
            slots[t, i], rows[slot], weights[slot] = slot, t, chances[t, i]
        if slots.shape[1] > n_chosen:
            slots[t, n_chosen] = rows.size + t


@kernel
def _route(team, logits, n_rows, n_experts, how, biases, routes):
    _choose_rows(team, (team, logits, n_rows, n_experts, how, biases, routes))
    _deal(n_rows, routes)
    shared = routes[6]
    shared[0, 0], shared[0, 1] = 1, n_rows
    shared[1, 0], shared[1, 1], shared[1, 2] = 0, 0, n_rows


def route(
    team: np.ndarray, logits: np.ndarray, n_rows: int, routes: Routes, router: Router,
    bias: np.ndarray = NO_BIAS, choice_bias: np.ndarray = NO_BIAS, *, has_shared_gate: bool = False,
) -> None:  # fmt: skip
    """Chooses the experts of n_rows rows by their logits (T, n_experts or wider) float32, to which
    `bias` (n_experts or empty) is added first.

    `choice_bias` (likewise) is added to the scores by which they are chosen, not to weights.
    With `has_shared_gate` a shared expert's weight is the sigmoid of the column behind the
    experts.
    """
    how = (
        router.is_sigmoid, router.is_normalized, np.float32(router.scale), router.n_active_groups,
        router.is_sparse_mixer, has_shared_gate,
    )  # fmt: skip
    biases = (bias, choice_bias)
    launch(_route, team, logits, n_rows, len(routes.next), how, biases, tuple(routes))
