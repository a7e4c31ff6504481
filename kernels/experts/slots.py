"""The inputs of products with experts: rows that are laid out batch by batch."""

from __future__ import annotations

import numpy as np

from kernels.activations import gated_row
from kernels.emit.jit import jitted, kernel
from kernels.gates import Gate
from kernels.matmul.batches import batch_of, n_batches
from kernels.matmul.tiles import n_tiles, tile_bounds
from kernels.prepare import bf16_words, lay_out, widest_laid_out
from kernels.program import launch
from kernels.team import claim, region
from kernels.weights.layout import BLOCK, Activations, Needs

NO_WEIGHTS = np.zeros(0, np.float32)
"""Stands for slots that all weigh 1."""

NO_BIASES = np.zeros((0, 0), np.float32)
"""Stands for experts without biases."""


@jitted
def from_row(a, first, n_cols):
    """The buffers of an input from row `first` on."""
    rows, tiles, quants, scales, sums, weighted, bf16 = a
    blocks = first * (n_cols // BLOCK)
    return (
        rows[first:], tiles[first * n_cols :], quants[blocks * BLOCK :], scales[blocks:],
        sums[3 * blocks :], weighted[3 * blocks :], bf16[first * bf16_words(n_cols) :],
    )  # fmt: skip


@jitted
def claim_tile(team, table, batch, before, needs):
    """Claims a tile for the calling thread, which has seen `before` tiles of the batches before
    `batch`: (batch, before, first row of the batch, its number of rows, first of them in the tile,
    end of the tile). At the end of all tiles the batch has no rows."""
    number = claim(team, 1)
    while batch < n_batches(table):
        _, first, n_rows = batch_of(table, batch, np.int64(0))
        widest = widest_laid_out(n_rows, needs)
        count = n_tiles(n_rows, widest)
        if number < before + count:
            start, end = tile_bounds(number - before, n_rows, widest)
            return batch, before, first, n_rows, start, end
        batch, before = batch + 1, before + count
    none = np.int64(0)
    return batch, before, none, none, none, none


@region
def _gather_rows(thread, team, x, rows, table, a, needs, weights):
    batch, before = np.int64(0), np.int64(0)
    while True:
        batch, before, first, n_rows, start, end = claim_tile(team, table, batch, before, needs)
        if n_rows == 0:
            return
        part = from_row(a, first, x.shape[1])
        for i in range(start, end):
            row = x[rows[first + i]]
            if weights.size > 0:
                weighed = a[0][first + i, : row.size]
                for c in range(row.size):
                    weighed[c] = row[c] * weights[first + i]
                row = weighed
            lay_out(part, row, i, n_rows, needs)


@kernel
def _gather(team, x, rows, table, a, needs, weights):
    _gather_rows(team, (team, x, rows, table, a, needs, weights))


def gather(
    team: np.ndarray, x: np.ndarray, rows: np.ndarray, table: np.ndarray, a: Activations,
    needs: Needs, weights: np.ndarray = NO_WEIGHTS,
) -> None:  # fmt: skip
    """Lays out x[rows] as the input of a product by batches: x (T, cols) float32, rows (S,) int32.
    Rows are multiplied with `weights` (S,) where there are some; else no rows of `a` are
    written."""
    launch(_gather, team, x, rows, table, tuple(a), needs, weights)


@region
def _activate_rows(thread, team, gate_up, weights, table, a, how, needs):
    biases, gate = how
    hidden = a[0].shape[1]
    batch, before = np.int64(0), np.int64(0)
    while True:
        batch, before, first, n_rows, start, end = claim_tile(team, table, batch, before, needs)
        if n_rows == 0:
            return
        part = from_row(a, first, a[0].shape[1])
        expert, _, _ = batch_of(table, batch, np.int64(0))
        for i in range(start, end):
            slot = first + i
            row = gate_up[slot, : 2 * hidden]
            if biases.shape[0] > 0:
                for c in range(row.size):
                    row[c] += biases[expert, c]
            out = a[0][slot]
            gated_row(row[:hidden], row[hidden:], gate, out)
            if weights.size > 0:
                for c in range(hidden):
                    out[c] *= weights[slot]
            lay_out(part, out, i, n_rows, needs)


@kernel
def _activate(team, gate_up, weights, table, a, how, needs):
    _activate_rows(team, (team, gate_up, weights, table, a, how, needs))


def activate(
    team: np.ndarray, gate_up: np.ndarray, weights: np.ndarray, table: np.ndarray, a: Activations,
    needs: Needs, gate: Gate = Gate.SILU, biases: np.ndarray = NO_BIASES,
) -> None:  # fmt: skip
    """a (S, hidden) = weight * silu(gate) * up, or what else `gate` says, where gate_up (S, 2 *
    hidden or wider) holds both side by side and weights (S,) are those of the slots, or none. To
    gate_up those of `biases` (E, 2 * hidden or wider) are added that belong to the slot's expert;
    there may be none."""
    how = (biases, int(gate))
    launch(_activate, team, gate_up, weights, table, tuple(a), how, needs)
