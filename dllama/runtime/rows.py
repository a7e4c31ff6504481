"""A step as the kernels read it, and its cut into groups of rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dllama.step import PAGE_TOKENS, Step
from kernels.recurrent.states import Slots


class PageTable(NamedTuple):
    """The pages of a step's sequences, and of each of its rows."""

    pages: np.ndarray  # (S, max_pages)
    row_pages: np.ndarray  # (T,)


@dataclass(frozen=True, slots=True)
class Rows:
    """A step as the kernels read it: contiguous int32 arrays."""

    n: int  # T
    starts: np.ndarray  # (S + 1,)
    positions: np.ndarray  # (T,)
    table: PageTable
    window_table: PageTable  # of layers with a window
    logits_at: np.ndarray  # (R,)
    hidden_at: np.ndarray  # (H,)
    slots: Slots  # of states

    @property
    def wanted(self) -> np.ndarray:
        """The rows whose last states are read, in rising order. Not for short steps, all rows of
        which are computed to the end."""
        rows = np.sort(np.concatenate((self.logits_at, self.hidden_at)))
        is_new = np.ones(len(rows), np.bool_)  # np.unique would import numpy.ma, in the first step
        is_new[1:] = rows[1:] != rows[:-1]
        return rows[is_new]


def rows_of(step: Step) -> Rows:
    """The rows of a step."""
    positions = np.ascontiguousarray(step.positions, np.int32)
    starts = np.ascontiguousarray(step.starts, np.int32)
    logits_at = np.ascontiguousarray(step.logits_at, np.int32)
    sequence = np.arange(len(starts) - 1)
    if len(sequence) < step.n_tokens:
        sequence = np.repeat(sequence, np.diff(starts))
    at = sequence, positions // PAGE_TOKENS
    table = _table_of(step.pages, at)
    windows = _table_of(step.window_pages, at) if len(step.window_pages) else table
    return Rows(
        step.n_tokens, starts, positions, table, windows, logits_at, step.hidden_at,
        _slots_of(step),
    )  # fmt: skip


def _table_of(pages: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> PageTable:
    """Returns the table of some pages; `at` are each row's places in them."""
    own = np.ascontiguousarray(pages, np.int32)
    return PageTable(own, np.ascontiguousarray(own[at]))


def _slots_of(step: Step) -> Slots:
    kept = np.full(step.n_tokens, -1, np.int32)
    if len(step.slots) == 0:
        own = np.arange(len(step.starts) - 1, dtype=np.int32)
        return Slots(own, own, kept)
    kept[step.kept[:, 0]] = step.kept[:, 1]
    return Slots(
        np.ascontiguousarray(step.slots[:, 0]), np.ascontiguousarray(step.slots[:, 1]), kept
    )


def split(rows: Rows, n_groups: int) -> list[tuple[int, Rows]]:
    """Cuts a step's rows into groups of about one size; returns the first row of each and the group
    as a step of its own that wants no logits, but their rows' last states."""
    wanted = rows.wanted
    edges = [rows.n * i // n_groups for i in range(n_groups + 1)]
    groups = []
    for first, end in pairwise(edges):
        part = slice(first, end)
        begin = int(np.searchsorted(rows.starts, first, "right")) - 1
        stop = int(np.searchsorted(rows.starts, end, "left"))
        starts = np.clip(rows.starts[begin : stop + 1], first, end) - np.int32(first)
        inside = wanted[(wanted >= first) & (wanted < end)] - first
        sources, targets = rows.slots.sources[begin:stop].copy(), rows.slots.targets[begin:stop]
        if rows.starts[begin] < first:  # goes on from what the group before has left
            sources[0] = targets[0]
        table, window_table = (
            PageTable(table.pages[begin:stop], table.row_pages[part])
            for table in (rows.table, rows.window_table)
        )
        group = Rows(
            end - first, starts, rows.positions[part], table,
            window_table, rows.logits_at[:0], inside,
            Slots(sources, targets, rows.slots.copies[part]),
        )  # fmt: skip
        groups.append((first, group))
    return groups
