"""The batches of a product with several matrices: which rows of the input are multiplied with which
matrix. They are read from memory, so that a recorded call computes whatever they say by then."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.emit.jit import jitted

NO_TABLE = np.zeros((0, 3), np.int32)
"""Stands for one batch: all rows, with the only matrix."""


class Batches(NamedTuple):
    """Batches of rows, and where the matrices lie that they are multiplied with.

    The first line of `table`, (n + 1, 3) int32, has the number of batches and the most rows of one.
    Each line after it is a batch: its matrix, its first row, and its number of rows.
    """

    table: np.ndarray
    n_groups: int  # of a matrix
    stride: int  # groups from one matrix to the next


@jitted
def n_batches(table):
    """The number of batches."""
    return np.int64(1 if table.shape[0] == 0 else table[0, 0])


@jitted
def most_rows(table, n_tokens):
    """The rows of the largest batch, of n_tokens rows in all."""
    return n_tokens if table.shape[0] == 0 else np.int64(table[0, 1])


@jitted
def batch_of(table, number, n_tokens):
    """A batch by its number: its matrix, its first row, its number of rows."""
    if table.shape[0] == 0:
        return np.int64(0), np.int64(0), n_tokens
    line = number + 1
    return np.int64(table[line, 0]), np.int64(table[line, 1]), np.int64(table[line, 2])
