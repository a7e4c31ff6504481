"""Which experts each row of a step takes, with which weights, and which rows each expert gets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.arrays import aligned
from kernels.emit.exponential import exp_f32
from kernels.emit.jit import jitted, kernel
from kernels.program import launch
from kernels.team import claim, region

_NO_BIAS = np.zeros(0, np.float32)
ROWS_AT_ONCE = 4  # of which a thread chooses the experts: they share cache lines


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
    shared_weights: np.ndarray  # (T,) float32: those of the shared expert
    next: np.ndarray  # (E,) int32: scratch

    @property
    def first_shared(self) -> int:
        """The shared expert's slot of the first row."""
        return len(self.rows)


def routes(max_rows: int, n_experts: int, n_active: int, has_shared: bool) -> Routes:
    """Returns buffers for steps of up to max_rows rows, which take n_active experts each, and the
    shared one."""
    return Routes(
        chosen=aligned((max_rows, n_active), np.int32),
        chances=aligned((max_rows, n_active), np.float32),
        slots=aligned((max_rows, n_active + has_shared), np.int32),
        rows=aligned(max_rows * n_active, np.int32),
        weights=aligned(max_rows * n_active, np.float32),
        table=aligned((n_experts + 1, 3), np.int32),
        shared=aligned((2, 3), np.int32),
        shared_weights=aligned(max_rows, np.float32),
        next=aligned(n_experts, np.int32),
    )


@jitted
def _choose(logits, chosen):
    """The indices of the largest logits, the largest first; of equal ones the lower index first."""
    last, last_index = np.float32(np.inf), -1
    for i in range(chosen.size):
        best, best_index = np.float32(0), -1
        for index in range(logits.size):
            x = logits[index]
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


@region
def _choose_rows(thread, team, logits, n_rows, n_experts, how, routes):
    is_normalized, scale, bias = how
    chosen, chances, slots, shared_weights = routes[0], routes[1], routes[2], routes[7]
    while True:
        first = claim(team, ROWS_AT_ONCE)
        if first >= n_rows:
            return
        for t in range(first, min(first + ROWS_AT_ONCE, n_rows)):
            for e in range(bias.size):
                logits[t, e] += bias[e]
            _choose(logits[t, :n_experts], chosen[t])
            _weigh(logits[t, :n_experts], chosen[t], is_normalized, scale, chances[t])
            if slots.shape[1] > chosen.shape[1]:
                minus = exp_f32(-logits[t, n_experts])
                shared_weights[t] = np.float32(1) / (np.float32(1) + minus)


@jitted
def _deal(n_rows, routes):
    """Deals slots to rows, expert by expert: a counting sort."""
    chosen, chances, slots, rows, weights, table, _, _, following = routes
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
def _route(team, logits, n_rows, n_experts, how, routes):
    _choose_rows(team, (team, logits, n_rows, n_experts, how, routes))
    _deal(n_rows, routes)
    shared = routes[6]
    shared[0, 0], shared[0, 1] = 1, n_rows
    shared[1, 0], shared[1, 1], shared[1, 2] = 0, 0, n_rows


def route(
    team: np.ndarray, logits: np.ndarray, n_rows: int, routes: Routes, *, is_normalized: bool,
    scale: float, bias: np.ndarray = _NO_BIAS,
) -> None:  # fmt: skip
    """Chooses the experts of n_rows rows by their logits (T, n_experts or wider) float32, to which
    `bias` (n_experts or empty) is added first.

    A weight is the softmax over all experts, or over the chosen ones where `is_normalized`, times
    `scale`. A shared expert's weight is the sigmoid of the column behind the experts.
    """
    how = (is_normalized, np.float32(scale), bias)
    launch(_route, team, logits, n_rows, len(routes.next), how, tuple(routes))
